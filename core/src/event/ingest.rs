//! Events read from documents that others send: S3 `Records`, CloudEvents, newline-delimited JSON.
