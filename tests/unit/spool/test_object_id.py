"""Names of objects: neighbours in the index while they are made, told apart by what people are shown of them."""

import re
import time

from gateway.spool.store import ID_WINDOW_S, Store, new_object_id

NOON = 1_800_000_000.0 // ID_WINDOW_S * ID_WINDOW_S


def test_an_id_is_32_hex_digits_at_any_time():
    for now in (0.0, -1.0, NOON, 2.0**40):
        assert re.fullmatch("[0-9a-f]{32}", new_object_id(now))


def test_ids_of_one_window_begin_alike_and_later_ones_come_later():
    ids = [new_object_id(NOON + step * ID_WINDOW_S + part) for step in range(50) for part in (0, 100, 255)]
    assert [one[:5] for one in ids] == sorted(one[:5] for one in ids)
    assert len({one[:5] for one in ids}) == 50


def test_what_people_are_shown_of_ids_made_at_once_differs():
    assert len({new_object_id(NOON)[:12] for _ in range(100)}) == 100


def test_the_store_names_objects_so(tmp_path):
    store = Store(tmp_path)
    store.prepare()
    windows = [new_object_id(time.time())[:5]]
    part = store.new_part(("1.2.840.10008.5.1.4.1.1.2", "1.2.3", "1.2.840.10008.1.2.1"))
    windows.append(new_object_id(time.time())[:5])
    assert part.object_id[:5] in windows
    part.drop()
    store.drop_prepared()
