"""When the box may give up a copy that every destination has confirmed."""
