//! The integration tests: one binary, one file a subject, real peers over real sockets.
