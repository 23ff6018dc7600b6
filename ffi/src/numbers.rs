//! The numbers of the header: results, event types and choices.
//!
//! The enums are here for the header alone. The functions take and return the integers of the same names in
//! [`crate::raw`], because a C program can pass any number where Rust allows only the named ones.

/// What a call answers: `TIDEWIRE_OK`, or what kind of thing went wrong. The numbers are stable; later versions may
/// add some, so treat an unknown one as a failure.
#[repr(u32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum tidewire_result_t {
    /// Done.
    TIDEWIRE_OK = 0,
    /// The event breaks a limit, names an unknown type, or has text that is not UTF-8. Change the event.
    TIDEWIRE_INVALID_EVENT = 1,
    /// The configuration is wrong. The message names file, line and column.
    TIDEWIRE_INVALID_CONFIG = 2,
    /// There is no space for the event now. Try again later.
    TIDEWIRE_FULL = 3,
    /// The time was up before the operation was done.
    TIDEWIRE_TIMEOUT = 4,
    /// The engine is closing or closed.
    TIDEWIRE_CLOSED = 5,
    /// The operating system refused an operation on a file or socket.
    TIDEWIRE_IO = 6,
    /// Another process, or another engine of this process, has the data directory open.
    TIDEWIRE_LOCKED = 7,
    /// The data directory cannot be written.
    TIDEWIRE_READ_ONLY = 8,
    /// The file system that holds the data directory is full.
    TIDEWIRE_NO_SPACE = 9,
    /// io_uring cannot be used here. The message tells why and what to change.
    TIDEWIRE_IO_URING_UNAVAILABLE = 10,
    /// The data directory was written by a newer version of Tidewire.
    TIDEWIRE_NEWER_FORMAT = 11,
    /// Stored data fails its checksum or cannot be understood.
    TIDEWIRE_CORRUPT = 12,
    /// The log failed (a write or a sync was refused) and takes no more events. Close the engine and open it again.
    TIDEWIRE_LOG_FAILED = 13,
    /// The engine was opened by the parent of this process. Open one after the fork.
    TIDEWIRE_WRONG_PROCESS = 14,
    /// A panic was caught at the border of the library: a defect of Tidewire. The host is unharmed; close the engine.
    TIDEWIRE_PANIC = 15,
    /// An argument is NULL or malformed. The message names it.
    TIDEWIRE_INVALID_ARGUMENT = 16,
    /// The name asked for does not exist.
    TIDEWIRE_NOT_FOUND = 17,
    /// A defect of Tidewire that is none of the above.
    TIDEWIRE_INTERNAL = 18,
    /// What is there is not what the caller expected (another version, or something of another owner). Read it anew.
    TIDEWIRE_CONFLICT = 19,
    /// The engine is another process's, which cannot be reached; it is tried again and again. What was published and not
    /// acknowledged may have been accepted or not.
    TIDEWIRE_DISCONNECTED = 20,
}

/// How safe an event is before `tidewire_publish` returns.
#[repr(u32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum tidewire_ack_t {
    /// It is durable: it survives loss of power, as far as the device tells the truth about its cache. The default.
    TIDEWIRE_ACK_SYNCED = 0,
    /// It was handed to the operating system: it survives the end of the process.
    TIDEWIRE_ACK_WRITTEN = 1,
    /// It is in memory: it is lost if the process dies now. The call does not wait for the disk.
    TIDEWIRE_ACK_MEMORY = 2,
}

/// What `tidewire_publish` does when there is no space for the event.
#[repr(u32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum tidewire_on_full_t {
    /// Waits up to `full_timeout_ms`, then answers `TIDEWIRE_FULL`. The default.
    TIDEWIRE_ON_FULL_BLOCK = 0,
    /// Answers `TIDEWIRE_FULL` at once.
    TIDEWIRE_ON_FULL_REFUSE = 1,
}

/// What became of an event.
#[repr(u32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum tidewire_outcome_t {
    /// It was not accepted; the result of the call tells why.
    TIDEWIRE_OUTCOME_REFUSED = 0,
    /// It was accepted. With `TIDEWIRE_TIMEOUT` or `TIDEWIRE_LOG_FAILED` as the result of the call, it has not reached
    /// the ack level asked for: do not publish it again after a timeout, it is on its way.
    TIDEWIRE_OUTCOME_ACCEPTED = 1,
    /// No rule wants events of this bucket and type. Nothing was copied, nothing will be kept.
    TIDEWIRE_OUTCOME_NO_MATCH = 2,
    /// It was accepted before (the same `dedup_key`, or a cursor that is not above an earlier one) and is not accepted
    /// again. The one that was has reached the ack level asked for, unless the result of the call says otherwise.
    TIDEWIRE_OUTCOME_DUPLICATE = 3,
}

/// What of a reservation survives a crash between the operation and its commit.
#[repr(u32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum tidewire_intent_t {
    /// Nothing: the event is lost then. Costs no I/O. The default.
    TIDEWIRE_INTENT_NONE = 0,
    /// It is in the log and synced before the call returns: the next opening asks what became of the operation
    /// (`tidewire_in_doubt`).
    TIDEWIRE_INTENT_DURABLE = 1,
}

/// The encoding of a notification document.
#[repr(u32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum tidewire_notification_format_t {
    /// The first character tells. The default.
    TIDEWIRE_NOTIFICATION_AUTO = 0,
    /// `<NotificationConfiguration>`, as the API of S3 takes it.
    TIDEWIRE_NOTIFICATION_XML = 1,
    /// `{"QueueConfigurations": […]}`, as the AWS tools write it.
    TIDEWIRE_NOTIFICATION_JSON = 2,
}

/// What to do about rules of one notification document that want the same event.
#[repr(u32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum tidewire_overlap_t {
    /// They are accepted; a destination hears of an event once. The default.
    TIDEWIRE_OVERLAP_ALLOW_DEDUPE = 0,
    /// They are refused, as AWS does.
    TIDEWIRE_OVERLAP_STRICT_AWS = 1,
    /// They are accepted; a destination hears of an event once per rule.
    TIDEWIRE_OVERLAP_ALLOW_ALL = 2,
}

/// How the filter values of a notification document are written.
#[repr(u32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum tidewire_filter_values_t {
    /// As the bytes of the key. The default.
    TIDEWIRE_FILTER_VALUES_RAW = 0,
    /// Form-encoded, as AWS compares them (`my+photos/`); decoded when read.
    TIDEWIRE_FILTER_VALUES_ENCODED = 1,
}

/// What a notification document may say beyond S3.
#[repr(u32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum tidewire_extensions_t {
    /// Nothing. The default.
    TIDEWIRE_EXTENSIONS_NONE = 0,
    /// What Ceph understands: `regex` in `S3Key`, `S3Metadata`, `S3Tags`, and `Type` of a rule.
    TIDEWIRE_EXTENSIONS_CEPH = 1,
}

/// Which details of an event are of use; several may be, added up.
#[repr(u32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum tidewire_details_wanted_t {
    /// None.
    TIDEWIRE_DETAILS_NONE = 0,
    /// Its metadata.
    TIDEWIRE_DETAILS_METADATA = 1,
    /// Its tags.
    TIDEWIRE_DETAILS_TAGS = 2,
}

/// The form of a text of metrics.
#[repr(u32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum tidewire_metrics_format_t {
    /// Prometheus' text format, version 0.0.4. The default.
    TIDEWIRE_METRICS_PROMETHEUS = 0,
    /// OpenMetrics 1.0.
    TIDEWIRE_METRICS_OPENMETRICS = 1,
}

/// How important a message is.
#[repr(u32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum tidewire_log_level_t {
    /// Something is lost or stands still until somebody acts.
    TIDEWIRE_LOG_ERROR = 1,
    /// Something is not as it should be.
    TIDEWIRE_LOG_WARN = 2,
    /// What an operator may want to know.
    TIDEWIRE_LOG_INFO = 3,
    /// For who looks for a fault.
    TIDEWIRE_LOG_DEBUG = 4,
    /// Everything.
    TIDEWIRE_LOG_TRACE = 5,
}

/// Where in the log reading begins.
#[repr(u32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum tidewire_from_t {
    /// Behind the newest event. The default.
    TIDEWIRE_FROM_NOW = 0,
    /// With the oldest event that there is.
    TIDEWIRE_FROM_BEGINNING = 1,
    /// With the first event whose clock is at least `from_ns`.
    TIDEWIRE_FROM_TIME = 2,
    /// Where a tail stopped: behind `position`. What has been removed since then is told as a gap.
    TIDEWIRE_FROM_POSITION = 3,
}

/// Why a stretch of the log is missing.
#[repr(u32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum tidewire_gap_t {
    /// Nothing is missing.
    TIDEWIRE_GAP_NONE = 0,
    /// It was removed: everything had been delivered, and retention did not keep it, or not so long.
    TIDEWIRE_GAP_REMOVED = 1,
    /// The bytes there are no records.
    TIDEWIRE_GAP_DAMAGED = 2,
}

/// What becomes of what waits for a destination that is changed or deleted.
#[repr(u32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum tidewire_backlog_t {
    /// It goes on to the destination as it is from now on; of one that is deleted, it is drained. The default.
    TIDEWIRE_BACKLOG_KEEP = 0,
    /// It is delivered with the settings of before.
    TIDEWIRE_BACKLOG_DRAIN = 1,
    /// It becomes dead letters.
    TIDEWIRE_BACKLOG_DEAD_LETTER = 2,
    /// It is dropped, counted and audited.
    TIDEWIRE_BACKLOG_PURGE = 3,
    /// It goes to another destination, before what that one gets from now on.
    TIDEWIRE_BACKLOG_MOVE = 4,
}

/// How important an event is when not everything can be delivered at once.
#[repr(u32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum tidewire_priority_t {
    /// The ordinary case. The default.
    TIDEWIRE_PRIORITY_NORMAL = 0,
    /// Waits or is shed first.
    TIDEWIRE_PRIORITY_LOW = 1,
    /// Goes on while others wait.
    TIDEWIRE_PRIORITY_HIGH = 2,
}

/// Who caused an event.
#[repr(u32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum tidewire_origin_t {
    /// A request of a user or an application. The default.
    TIDEWIRE_ORIGIN_USER = 0,
    /// The store itself, applying a change that came from another site.
    TIDEWIRE_ORIGIN_REPLICA = 1,
    /// The store itself, applying a lifecycle rule.
    TIDEWIRE_ORIGIN_LIFECYCLE = 2,
}

/// How a filter is written.
#[repr(u32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum tidewire_filter_format_t {
    /// The native form, in JSON: `{"prefix": "in/", "size": {"min": 1}}`; see `tidewire_filter_schema`. The default.
    TIDEWIRE_FILTER_JSON = 0,
    /// An event pattern of Amazon EventBridge, for its form of S3 events: `{"detail": {"object": {"key": [{"prefix":
    /// "in/"}]}}}`.
    TIDEWIRE_FILTER_EVENTBRIDGE = 1,
    /// An event pattern of Amazon EventBridge, for the JSON data of events.
    TIDEWIRE_FILTER_EVENTBRIDGE_DATA = 2,
    /// Filters of the CloudEvents Subscriptions API, in JSON: `[{"prefix": {"subject": "in/"}}]`.
    TIDEWIRE_FILTER_CLOUDEVENTS = 3,
    /// The Common Expression Language, on the variable `event`: `event.key.startsWith("in/") && event.size > 0`.
    TIDEWIRE_FILTER_CEL = 4,
    /// The `Filter` of an S3 notification document, in XML or JSON: `{"Key": {"FilterRules": [{"Name": "prefix", "Value":
    /// "in/"}]}}`. Values are taken as they are, not as form-encoded.
    TIDEWIRE_FILTER_S3 = 5,
    /// The same, with what Ceph has more: `regex`, metadata and tags.
    TIDEWIRE_FILTER_S3_CEPH = 6,
}

/// What happened. Each constant stands for the name beside it, as rules and records write it; a number costs less than
/// a name.
#[repr(u32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum tidewire_event_type_t {
    /// The type that `event_type_name` names: one of those below, or one that the configuration registers
    /// (`engine.event_types`).
    TIDEWIRE_EVENT_NAMED = 0,
    /// `s3:ObjectCreated:Put`.
    TIDEWIRE_EVENT_OBJECT_CREATED_PUT = 1,
    /// `s3:ObjectCreated:Post`.
    TIDEWIRE_EVENT_OBJECT_CREATED_POST = 2,
    /// `s3:ObjectCreated:Copy`.
    TIDEWIRE_EVENT_OBJECT_CREATED_COPY = 3,
    /// `s3:ObjectCreated:CompleteMultipartUpload`.
    TIDEWIRE_EVENT_OBJECT_CREATED_COMPLETE_MULTIPART_UPLOAD = 4,
    /// `s3:ObjectRemoved:Delete`.
    TIDEWIRE_EVENT_OBJECT_REMOVED_DELETE = 5,
    /// `s3:ObjectRemoved:DeleteMarkerCreated`.
    TIDEWIRE_EVENT_OBJECT_REMOVED_DELETE_MARKER_CREATED = 6,
    /// `s3:ObjectRemoved:DeleteAllVersions`.
    TIDEWIRE_EVENT_OBJECT_REMOVED_DELETE_ALL_VERSIONS = 7,
    /// `s3:ObjectRemoved:NoOP`.
    TIDEWIRE_EVENT_OBJECT_REMOVED_NOOP = 8,
    /// `s3:LifecycleExpiration:Delete`.
    TIDEWIRE_EVENT_LIFECYCLE_EXPIRATION_DELETE = 9,
    /// `s3:LifecycleExpiration:DeleteMarkerCreated`.
    TIDEWIRE_EVENT_LIFECYCLE_EXPIRATION_DELETE_MARKER_CREATED = 10,
    /// `s3:ObjectLifecycle:Expiration:AbortMultipartUpload`.
    TIDEWIRE_EVENT_LIFECYCLE_EXPIRATION_ABORT_MULTIPART_UPLOAD = 11,
    /// `s3:LifecycleTransition` with `data` as `{"destinationStorageClass": string}`.
    TIDEWIRE_EVENT_LIFECYCLE_TRANSITION = 12,
    /// `s3:ObjectTransition:Failed` with `data` as `{"destinationStorageClass": string}`.
    TIDEWIRE_EVENT_LIFECYCLE_TRANSITION_FAILED = 13,
    /// `s3:IntelligentTiering` with `data` as `{"destinationAccessTier": string}`.
    TIDEWIRE_EVENT_INTELLIGENT_TIERING = 14,
    /// `s3:ObjectRestore:Post`.
    TIDEWIRE_EVENT_OBJECT_RESTORE_POST = 15,
    /// `s3:ObjectRestore:Completed` with `data` as `{"lifecycleRestorationExpiryTime": string,
    /// "lifecycleRestoreStorageClass": string}`.
    TIDEWIRE_EVENT_OBJECT_RESTORE_COMPLETED = 16,
    /// `s3:ObjectRestore:Delete`.
    TIDEWIRE_EVENT_OBJECT_RESTORE_DELETE = 17,
    /// `s3:ReducedRedundancyLostObject`.
    TIDEWIRE_EVENT_REDUCED_REDUNDANCY_LOST_OBJECT = 18,
    /// `s3:Replication:OperationFailedReplication` with `data` as `{"replicationRuleId": string,
    /// "destinationBucket": string, "s3Operation": string, "requestTime": string, "failureReason":
    /// string}`.
    TIDEWIRE_EVENT_REPLICATION_FAILED = 19,
    /// `s3:Replication:OperationMissedThreshold` with `data` as `{"replicationRuleId": string,
    /// "destinationBucket": string, "s3Operation": string, "requestTime": string, "threshold": string}`.
    TIDEWIRE_EVENT_REPLICATION_MISSED_THRESHOLD = 20,
    /// `s3:Replication:OperationReplicatedAfterThreshold` with `data` as `{"replicationRuleId": string,
    /// "destinationBucket": string, "s3Operation": string, "requestTime": string, "threshold": string,
    /// "replicationTime": string}`.
    TIDEWIRE_EVENT_REPLICATION_REPLICATED_AFTER_THRESHOLD = 21,
    /// `s3:Replication:OperationNotTracked` with `data` as `{"replicationRuleId": string,
    /// "destinationBucket": string, "s3Operation": string, "requestTime": string}`.
    TIDEWIRE_EVENT_REPLICATION_NOT_TRACKED = 22,
    /// `s3:Replication:OperationCompletedReplication` with `data` as `{"replicationRuleId": string,
    /// "destinationBucket": string, "s3Operation": string, "requestTime": string}`.
    TIDEWIRE_EVENT_REPLICATION_COMPLETED = 23,
    /// `s3:ObjectSynced:Create`.
    TIDEWIRE_EVENT_REPLICA_CREATED = 24,
    /// `s3:ObjectSynced:Delete`.
    TIDEWIRE_EVENT_REPLICA_DELETED = 25,
    /// `s3:ObjectSynced:DeletionMarkerCreated`.
    TIDEWIRE_EVENT_REPLICA_DELETE_MARKER_CREATED = 26,
    /// `s3:ObjectTagging:Put`.
    TIDEWIRE_EVENT_OBJECT_TAGGING_PUT = 27,
    /// `s3:ObjectTagging:Delete`.
    TIDEWIRE_EVENT_OBJECT_TAGGING_DELETE = 28,
    /// `s3:ObjectAcl:Put`.
    TIDEWIRE_EVENT_OBJECT_ACL_PUT = 29,
    /// `s3:ObjectAnnotation:Put`.
    TIDEWIRE_EVENT_OBJECT_ANNOTATION_PUT = 30,
    /// `s3:ObjectAnnotation:Delete`.
    TIDEWIRE_EVENT_OBJECT_ANNOTATION_DELETE = 31,
    /// `s3:ObjectMetadata:Put`.
    TIDEWIRE_EVENT_OBJECT_METADATA_PUT = 32,
    /// `s3:ObjectRetention:Put`.
    TIDEWIRE_EVENT_OBJECT_RETENTION_PUT = 33,
    /// `s3:ObjectLegalHold:Put`.
    TIDEWIRE_EVENT_OBJECT_LEGAL_HOLD_PUT = 34,
    /// `s3:ObjectRenamed` with `data` as `{"sourceKey": string}`.
    TIDEWIRE_EVENT_OBJECT_RENAMED = 35,
    /// `s3:ObjectAccessed:Get`.
    TIDEWIRE_EVENT_OBJECT_ACCESSED_GET = 40,
    /// `s3:ObjectAccessed:Head`.
    TIDEWIRE_EVENT_OBJECT_ACCESSED_HEAD = 41,
    /// `s3:ObjectAccessed:GetRetention`.
    TIDEWIRE_EVENT_OBJECT_ACCESSED_GET_RETENTION = 42,
    /// `s3:ObjectAccessed:GetLegalHold`.
    TIDEWIRE_EVENT_OBJECT_ACCESSED_GET_LEGAL_HOLD = 43,
    /// `s3:ObjectAccessed:Attributes`.
    TIDEWIRE_EVENT_OBJECT_ACCESSED_ATTRIBUTES = 44,
    /// `s3:BucketAccessed:List`.
    TIDEWIRE_EVENT_BUCKET_ACCESSED_LIST = 45,
    /// `Access:Denied:Read` with `data` as `{"reason": string, "statusCode": number}`.
    TIDEWIRE_EVENT_ACCESS_DENIED_READ = 50,
    /// `Access:Denied:Write` with `data` as `{"reason": string, "statusCode": number}`.
    TIDEWIRE_EVENT_ACCESS_DENIED_WRITE = 51,
    /// `Access:Denied:Delete` with `data` as `{"reason": string, "statusCode": number}`.
    TIDEWIRE_EVENT_ACCESS_DENIED_DELETE = 52,
    /// `Access:Denied:List` with `data` as `{"reason": string, "statusCode": number}`.
    TIDEWIRE_EVENT_ACCESS_DENIED_LIST = 53,
    /// `Access:Denied:Admin` with `data` as `{"reason": string, "statusCode": number}`.
    TIDEWIRE_EVENT_ACCESS_DENIED_ADMIN = 54,
    /// `s3:BucketCreated`.
    TIDEWIRE_EVENT_BUCKET_CREATED = 60,
    /// `s3:BucketRemoved`.
    TIDEWIRE_EVENT_BUCKET_REMOVED = 61,
    /// `s3:Scanner:ManyVersions` with `data` as `{"versions": number}`.
    TIDEWIRE_EVENT_SCANNER_MANY_VERSIONS = 62,
    /// `s3:Scanner:LargeVersions` with `data` as `{"versions": number, "bytes": number}`.
    TIDEWIRE_EVENT_SCANNER_LARGE_VERSIONS = 63,
    /// `s3:Scanner:BigPrefix` with `data` as `{"prefixes": number}`.
    TIDEWIRE_EVENT_SCANNER_BIG_PREFIX = 64,
    /// `Configuration:Policy:Put` with `data` as `{"document": any, "previous": any}`.
    TIDEWIRE_EVENT_CONFIGURATION_POLICY_PUT = 70,
    /// `Configuration:Policy:Delete` with `data` as `{"previous": any}`.
    TIDEWIRE_EVENT_CONFIGURATION_POLICY_DELETE = 71,
    /// `Configuration:Acl:Put` with `data` as `{"document": any, "previous": any}`.
    TIDEWIRE_EVENT_CONFIGURATION_ACL_PUT = 72,
    /// `Configuration:Acl:Delete` with `data` as `{"previous": any}`.
    TIDEWIRE_EVENT_CONFIGURATION_ACL_DELETE = 73,
    /// `Configuration:Lifecycle:Put` with `data` as `{"document": any, "previous": any}`.
    TIDEWIRE_EVENT_CONFIGURATION_LIFECYCLE_PUT = 74,
    /// `Configuration:Lifecycle:Delete` with `data` as `{"previous": any}`.
    TIDEWIRE_EVENT_CONFIGURATION_LIFECYCLE_DELETE = 75,
    /// `Configuration:Replication:Put` with `data` as `{"document": any, "previous": any}`.
    TIDEWIRE_EVENT_CONFIGURATION_REPLICATION_PUT = 76,
    /// `Configuration:Replication:Delete` with `data` as `{"previous": any}`.
    TIDEWIRE_EVENT_CONFIGURATION_REPLICATION_DELETE = 77,
    /// `Configuration:Notification:Put` with `data` as `{"document": any, "previous": any}`.
    TIDEWIRE_EVENT_CONFIGURATION_NOTIFICATION_PUT = 78,
    /// `Configuration:Notification:Delete` with `data` as `{"previous": any}`.
    TIDEWIRE_EVENT_CONFIGURATION_NOTIFICATION_DELETE = 79,
    /// `Configuration:Encryption:Put` with `data` as `{"document": any, "previous": any}`.
    TIDEWIRE_EVENT_CONFIGURATION_ENCRYPTION_PUT = 80,
    /// `Configuration:Encryption:Delete` with `data` as `{"previous": any}`.
    TIDEWIRE_EVENT_CONFIGURATION_ENCRYPTION_DELETE = 81,
    /// `Configuration:Versioning:Put` with `data` as `{"document": any, "previous": any}`.
    TIDEWIRE_EVENT_CONFIGURATION_VERSIONING_PUT = 82,
    /// `Configuration:Versioning:Delete` with `data` as `{"previous": any}`.
    TIDEWIRE_EVENT_CONFIGURATION_VERSIONING_DELETE = 83,
    /// `System:Health:Ok` with `data` as `{"component": string, "detail": string}`.
    TIDEWIRE_EVENT_SYSTEM_HEALTH_OK = 90,
    /// `System:Health:Degraded` with `data` as `{"component": string, "detail": string}`.
    TIDEWIRE_EVENT_SYSTEM_HEALTH_DEGRADED = 91,
    /// `System:Health:Failed` with `data` as `{"component": string, "detail": string}`.
    TIDEWIRE_EVENT_SYSTEM_HEALTH_FAILED = 92,
    /// `System:Capacity:Normal` with `data` as `{"component": string, "usedBytes": number, "totalBytes":
    /// number, "thresholdPercent": number}`.
    TIDEWIRE_EVENT_SYSTEM_CAPACITY_NORMAL = 95,
    /// `System:Capacity:Warning` with `data` as `{"component": string, "usedBytes": number, "totalBytes":
    /// number, "thresholdPercent": number}`.
    TIDEWIRE_EVENT_SYSTEM_CAPACITY_WARNING = 96,
    /// `System:Capacity:Critical` with `data` as `{"component": string, "usedBytes": number, "totalBytes":
    /// number, "thresholdPercent": number}`.
    TIDEWIRE_EVENT_SYSTEM_CAPACITY_CRITICAL = 97,
    /// `s3:TestEvent`.
    TIDEWIRE_EVENT_TEST_EVENT = 100,
    /// `System:Destination:Pending` with `data` as `{"destination": string, "reason": string}`.
    TIDEWIRE_EVENT_SYSTEM_DESTINATION_PENDING = 101,
    /// `System:Destination:Verified` with `data` as `{"destination": string, "reason": string}`.
    TIDEWIRE_EVENT_SYSTEM_DESTINATION_VERIFIED = 102,
    /// `System:Destination:Suspended` with `data` as `{"destination": string, "reason": string}`.
    TIDEWIRE_EVENT_SYSTEM_DESTINATION_SUSPENDED = 103,
    /// `System:Destination:Disabled` with `data` as `{"destination": string, "reason": string}`.
    TIDEWIRE_EVENT_SYSTEM_DESTINATION_DISABLED = 104,
    /// `System:Destination:Resumed` with `data` as `{"destination": string, "reason": string}`.
    TIDEWIRE_EVENT_SYSTEM_DESTINATION_RESUMED = 105,
    /// `System:Destination:Failing` with `data` as `{"destination": string, "reason": string, "percent":
    /// number}`.
    TIDEWIRE_EVENT_SYSTEM_DESTINATION_FAILING = 106,
    /// `System:Destination:BreakerOpened` with `data` as `{"destination": string, "reason": string}`.
    TIDEWIRE_EVENT_SYSTEM_DESTINATION_BREAKER_OPENED = 107,
}
