"""DICOM edge gateway: durable custody beside the scanner, delivery to the archive over any line.

The walk of an object, in the order of the rooms:

    modality -> arrive -> admit -> spool -> route -> prepare -> send -> confirm -> retire

* `gateway.arrive`   doors: C-STORE, drop folder, import; `reception` is the one funnel
* `gateway.admit`    who may send
* `gateway.spool`    durable custody: bytes, ledger, recovery, capacity
* `gateway.route`    which destinations get an instance
* `gateway.prepare`  the form in which a destination gets it
* `gateway.send`     couriers (DIMSE, STOW-RS, folder), dispatch, back-off
* `gateway.confirm`  evidence that they arrived: storage commitment, query
* `gateway.retire`   release of what every destination has confirmed

Under them stand the tools (`config`, `dicom`, `identity`) and the words (`model`); over them `app` wires,
`supervisor` runs, `cli` talks. The one promise: 0x0000 means the bytes are on stable storage and in the ledger.
"""

__version__ = "0.1.0"
