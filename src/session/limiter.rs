//! The rules of the door as a pure state machine: no I/O, no clock, nothing async.
