/* Tidewire: event notifications of object stores, from C and C++.
 *
 * An engine is opened with a configuration, takes events, and delivers them to the destinations of its rules; see
 * tidewire_open, tidewire_publish and tidewire_close. Link with -ltidewire.
 *
 * Everywhere: NULL is refused with an error, unless the function says what it means. Bytes and texts come with their
 * length. What the caller passes stays the caller's, and is not kept after the call. What a function hands out says
 * which function frees it. Nothing unwinds or jumps out of a call.
 *
 * Licence: Apache-2.0 or MIT.
 */

/* Generated from the sources of ffi/; do not edit. */

#ifndef TIDEWIRE_H
#define TIDEWIRE_H


#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

/**
 * For `tidewire_close`: the time that the configuration gives (`engine.close_timeout`, 10 s by default).
 */
#define TIDEWIRE_TIMEOUT_CONFIGURED UINT64_MAX

/**
 * The first number of the version that this header belongs to: other programs break when it changes.
 */
#define TIDEWIRE_VERSION_MAJOR 0

/**
 * The second number: new functions and fields, or, while the first is 0, changes that break programs.
 */
#define TIDEWIRE_VERSION_MINOR 1

/**
 * The third number: repairs.
 */
#define TIDEWIRE_VERSION_PATCH 0

/**
 * The version that this header belongs to, as one number that grows: compare with `tidewire_version_number()`, which
 * tells the version of the library in use.
 */
#define TIDEWIRE_VERSION_NUMBER (((TIDEWIRE_VERSION_MAJOR * 1000000) + (TIDEWIRE_VERSION_MINOR * 1000)) + TIDEWIRE_VERSION_PATCH)

/**
 * What a call answers: `TIDEWIRE_OK`, or what kind of thing went wrong. The numbers are stable; later versions may
 * add some, so treat an unknown one as a failure.
 */
enum tidewire_result_t
#if defined(__cplusplus) || __STDC_VERSION__ >= 202311L
  : uint32_t
#endif // defined(__cplusplus) || __STDC_VERSION__ >= 202311L
 {
  /**
   * Done.
   */
  TIDEWIRE_OK = 0,
  /**
   * The event breaks a limit, names an unknown type, or has text that is not UTF-8. Change the event.
   */
  TIDEWIRE_INVALID_EVENT = 1,
  /**
   * The configuration is wrong. The message names file, line and column.
   */
  TIDEWIRE_INVALID_CONFIG = 2,
  /**
   * There is no space for the event now. Try again later.
   */
  TIDEWIRE_FULL = 3,
  /**
   * The time was up before the operation was done.
   */
  TIDEWIRE_TIMEOUT = 4,
  /**
   * The engine is closing or closed.
   */
  TIDEWIRE_CLOSED = 5,
  /**
   * The operating system refused an operation on a file or socket.
   */
  TIDEWIRE_IO = 6,
  /**
   * Another process, or another engine of this process, has the data directory open.
   */
  TIDEWIRE_LOCKED = 7,
  /**
   * The data directory cannot be written.
   */
  TIDEWIRE_READ_ONLY = 8,
  /**
   * The file system that holds the data directory is full.
   */
  TIDEWIRE_NO_SPACE = 9,
  /**
   * io_uring cannot be used here. The message tells why and what to change.
   */
  TIDEWIRE_IO_URING_UNAVAILABLE = 10,
  /**
   * The data directory was written by a newer version of Tidewire.
   */
  TIDEWIRE_NEWER_FORMAT = 11,
  /**
   * Stored data fails its checksum or cannot be understood.
   */
  TIDEWIRE_CORRUPT = 12,
  /**
   * The log failed (a write or a sync was refused) and takes no more events. Close the engine and open it again.
   */
  TIDEWIRE_LOG_FAILED = 13,
  /**
   * The engine was opened by the parent of this process. Open one after the fork.
   */
  TIDEWIRE_WRONG_PROCESS = 14,
  /**
   * A panic was caught at the border of the library: a defect of Tidewire. The host is unharmed; close the engine.
   */
  TIDEWIRE_PANIC = 15,
  /**
   * An argument is NULL or malformed. The message names it.
   */
  TIDEWIRE_INVALID_ARGUMENT = 16,
  /**
   * The name asked for does not exist.
   */
  TIDEWIRE_NOT_FOUND = 17,
  /**
   * A defect of Tidewire that is none of the above.
   */
  TIDEWIRE_INTERNAL = 18,
  /**
   * What is there is not what the caller expected (another version, or something of another owner). Read it anew.
   */
  TIDEWIRE_CONFLICT = 19,
};
#ifndef __cplusplus
#if __STDC_VERSION__ >= 202311L
typedef enum tidewire_result_t tidewire_result_t;
#else
typedef uint32_t tidewire_result_t;
#endif // __STDC_VERSION__ >= 202311L
#endif // __cplusplus

/**
 * How a filter is written.
 */
enum tidewire_filter_format_t
#if defined(__cplusplus) || __STDC_VERSION__ >= 202311L
  : uint32_t
#endif // defined(__cplusplus) || __STDC_VERSION__ >= 202311L
 {
  /**
   * The native form, in JSON: `{"prefix": "in/", "size": {"min": 1}}`; see `tidewire_filter_schema`. The default.
   */
  TIDEWIRE_FILTER_JSON = 0,
  /**
   * An event pattern of Amazon EventBridge, for its form of S3 events: `{"detail": {"object": {"key": [{"prefix":
   * "in/"}]}}}`.
   */
  TIDEWIRE_FILTER_EVENTBRIDGE = 1,
  /**
   * An event pattern of Amazon EventBridge, for the JSON data of events.
   */
  TIDEWIRE_FILTER_EVENTBRIDGE_DATA = 2,
  /**
   * Filters of the CloudEvents Subscriptions API, in JSON: `[{"prefix": {"subject": "in/"}}]`.
   */
  TIDEWIRE_FILTER_CLOUDEVENTS = 3,
  /**
   * The Common Expression Language, on the variable `event`: `event.key.startsWith("in/") && event.size > 0`.
   */
  TIDEWIRE_FILTER_CEL = 4,
  /**
   * The `Filter` of an S3 notification document, in XML or JSON: `{"Key": {"FilterRules": [{"Name": "prefix", "Value":
   * "in/"}]}}`. Values are taken as they are, not as form-encoded.
   */
  TIDEWIRE_FILTER_S3 = 5,
  /**
   * The same, with what Ceph has more: `regex`, metadata and tags.
   */
  TIDEWIRE_FILTER_S3_CEPH = 6,
};
#ifndef __cplusplus
#if __STDC_VERSION__ >= 202311L
typedef enum tidewire_filter_format_t tidewire_filter_format_t;
#else
typedef uint32_t tidewire_filter_format_t;
#endif // __STDC_VERSION__ >= 202311L
#endif // __cplusplus

/**
 * What happened. Each constant stands for the name beside it, as rules and records write it; a number costs less than
 * a name.
 */
enum tidewire_event_type_t
#if defined(__cplusplus) || __STDC_VERSION__ >= 202311L
  : uint32_t
#endif // defined(__cplusplus) || __STDC_VERSION__ >= 202311L
 {
  /**
   * The type that `event_type_name` names: one of those below, or one that the configuration registers
   * (`engine.event_types`).
   */
  TIDEWIRE_EVENT_NAMED = 0,
  /**
   * `s3:ObjectCreated:Put`.
   */
  TIDEWIRE_EVENT_OBJECT_CREATED_PUT = 1,
  /**
   * `s3:ObjectCreated:Post`.
   */
  TIDEWIRE_EVENT_OBJECT_CREATED_POST = 2,
  /**
   * `s3:ObjectCreated:Copy`.
   */
  TIDEWIRE_EVENT_OBJECT_CREATED_COPY = 3,
  /**
   * `s3:ObjectCreated:CompleteMultipartUpload`.
   */
  TIDEWIRE_EVENT_OBJECT_CREATED_COMPLETE_MULTIPART_UPLOAD = 4,
  /**
   * `s3:ObjectRemoved:Delete`.
   */
  TIDEWIRE_EVENT_OBJECT_REMOVED_DELETE = 5,
  /**
   * `s3:ObjectRemoved:DeleteMarkerCreated`.
   */
  TIDEWIRE_EVENT_OBJECT_REMOVED_DELETE_MARKER_CREATED = 6,
  /**
   * `s3:ObjectRemoved:DeleteAllVersions`.
   */
  TIDEWIRE_EVENT_OBJECT_REMOVED_DELETE_ALL_VERSIONS = 7,
  /**
   * `s3:ObjectRemoved:NoOP`.
   */
  TIDEWIRE_EVENT_OBJECT_REMOVED_NOOP = 8,
  /**
   * `s3:LifecycleExpiration:Delete`.
   */
  TIDEWIRE_EVENT_LIFECYCLE_EXPIRATION_DELETE = 9,
  /**
   * `s3:LifecycleExpiration:DeleteMarkerCreated`.
   */
  TIDEWIRE_EVENT_LIFECYCLE_EXPIRATION_DELETE_MARKER_CREATED = 10,
  /**
   * `s3:ObjectLifecycle:Expiration:AbortMultipartUpload`.
   */
  TIDEWIRE_EVENT_LIFECYCLE_EXPIRATION_ABORT_MULTIPART_UPLOAD = 11,
  /**
   * `s3:LifecycleTransition` with `data` as `{"destinationStorageClass": string}`.
   */
  TIDEWIRE_EVENT_LIFECYCLE_TRANSITION = 12,
  /**
   * `s3:ObjectTransition:Failed` with `data` as `{"destinationStorageClass": string}`.
   */
  TIDEWIRE_EVENT_LIFECYCLE_TRANSITION_FAILED = 13,
  /**
   * `s3:IntelligentTiering` with `data` as `{"destinationAccessTier": string}`.
   */
  TIDEWIRE_EVENT_INTELLIGENT_TIERING = 14,
  /**
   * `s3:ObjectRestore:Post`.
   */
  TIDEWIRE_EVENT_OBJECT_RESTORE_POST = 15,
  /**
   * `s3:ObjectRestore:Completed` with `data` as `{"lifecycleRestorationExpiryTime": string,
   * "lifecycleRestoreStorageClass": string}`.
   */
  TIDEWIRE_EVENT_OBJECT_RESTORE_COMPLETED = 16,
  /**
   * `s3:ObjectRestore:Delete`.
   */
  TIDEWIRE_EVENT_OBJECT_RESTORE_DELETE = 17,
  /**
   * `s3:ReducedRedundancyLostObject`.
   */
  TIDEWIRE_EVENT_REDUCED_REDUNDANCY_LOST_OBJECT = 18,
  /**
   * `s3:Replication:OperationFailedReplication` with `data` as `{"replicationRuleId": string,
   * "destinationBucket": string, "s3Operation": string, "requestTime": string, "failureReason":
   * string}`.
   */
  TIDEWIRE_EVENT_REPLICATION_FAILED = 19,
  /**
   * `s3:Replication:OperationMissedThreshold` with `data` as `{"replicationRuleId": string,
   * "destinationBucket": string, "s3Operation": string, "requestTime": string, "threshold": string}`.
   */
  TIDEWIRE_EVENT_REPLICATION_MISSED_THRESHOLD = 20,
  /**
   * `s3:Replication:OperationReplicatedAfterThreshold` with `data` as `{"replicationRuleId": string,
   * "destinationBucket": string, "s3Operation": string, "requestTime": string, "threshold": string,
   * "replicationTime": string}`.
   */
  TIDEWIRE_EVENT_REPLICATION_REPLICATED_AFTER_THRESHOLD = 21,
  /**
   * `s3:Replication:OperationNotTracked` with `data` as `{"replicationRuleId": string,
   * "destinationBucket": string, "s3Operation": string, "requestTime": string}`.
   */
  TIDEWIRE_EVENT_REPLICATION_NOT_TRACKED = 22,
  /**
   * `s3:Replication:OperationCompletedReplication` with `data` as `{"replicationRuleId": string,
   * "destinationBucket": string, "s3Operation": string, "requestTime": string}`.
   */
  TIDEWIRE_EVENT_REPLICATION_COMPLETED = 23,
  /**
   * `s3:ObjectSynced:Create`.
   */
  TIDEWIRE_EVENT_REPLICA_CREATED = 24,
  /**
   * `s3:ObjectSynced:Delete`.
   */
  TIDEWIRE_EVENT_REPLICA_DELETED = 25,
  /**
   * `s3:ObjectSynced:DeletionMarkerCreated`.
   */
  TIDEWIRE_EVENT_REPLICA_DELETE_MARKER_CREATED = 26,
  /**
   * `s3:ObjectTagging:Put`.
   */
  TIDEWIRE_EVENT_OBJECT_TAGGING_PUT = 27,
  /**
   * `s3:ObjectTagging:Delete`.
   */
  TIDEWIRE_EVENT_OBJECT_TAGGING_DELETE = 28,
  /**
   * `s3:ObjectAcl:Put`.
   */
  TIDEWIRE_EVENT_OBJECT_ACL_PUT = 29,
  /**
   * `s3:ObjectAnnotation:Put`.
   */
  TIDEWIRE_EVENT_OBJECT_ANNOTATION_PUT = 30,
  /**
   * `s3:ObjectAnnotation:Delete`.
   */
  TIDEWIRE_EVENT_OBJECT_ANNOTATION_DELETE = 31,
  /**
   * `s3:ObjectMetadata:Put`.
   */
  TIDEWIRE_EVENT_OBJECT_METADATA_PUT = 32,
  /**
   * `s3:ObjectRetention:Put`.
   */
  TIDEWIRE_EVENT_OBJECT_RETENTION_PUT = 33,
  /**
   * `s3:ObjectLegalHold:Put`.
   */
  TIDEWIRE_EVENT_OBJECT_LEGAL_HOLD_PUT = 34,
  /**
   * `s3:ObjectRenamed` with `data` as `{"sourceKey": string}`.
   */
  TIDEWIRE_EVENT_OBJECT_RENAMED = 35,
  /**
   * `s3:ObjectAccessed:Get`.
   */
  TIDEWIRE_EVENT_OBJECT_ACCESSED_GET = 40,
  /**
   * `s3:ObjectAccessed:Head`.
   */
  TIDEWIRE_EVENT_OBJECT_ACCESSED_HEAD = 41,
  /**
   * `s3:ObjectAccessed:GetRetention`.
   */
  TIDEWIRE_EVENT_OBJECT_ACCESSED_GET_RETENTION = 42,
  /**
   * `s3:ObjectAccessed:GetLegalHold`.
   */
  TIDEWIRE_EVENT_OBJECT_ACCESSED_GET_LEGAL_HOLD = 43,
  /**
   * `s3:ObjectAccessed:Attributes`.
   */
  TIDEWIRE_EVENT_OBJECT_ACCESSED_ATTRIBUTES = 44,
  /**
   * `s3:BucketAccessed:List`.
   */
  TIDEWIRE_EVENT_BUCKET_ACCESSED_LIST = 45,
  /**
   * `Access:Denied:Read` with `data` as `{"reason": string, "statusCode": number}`.
   */
  TIDEWIRE_EVENT_ACCESS_DENIED_READ = 50,
  /**
   * `Access:Denied:Write` with `data` as `{"reason": string, "statusCode": number}`.
   */
  TIDEWIRE_EVENT_ACCESS_DENIED_WRITE = 51,
  /**
   * `Access:Denied:Delete` with `data` as `{"reason": string, "statusCode": number}`.
   */
  TIDEWIRE_EVENT_ACCESS_DENIED_DELETE = 52,
  /**
   * `Access:Denied:List` with `data` as `{"reason": string, "statusCode": number}`.
   */
  TIDEWIRE_EVENT_ACCESS_DENIED_LIST = 53,
  /**
   * `Access:Denied:Admin` with `data` as `{"reason": string, "statusCode": number}`.
   */
  TIDEWIRE_EVENT_ACCESS_DENIED_ADMIN = 54,
  /**
   * `s3:BucketCreated`.
   */
  TIDEWIRE_EVENT_BUCKET_CREATED = 60,
  /**
   * `s3:BucketRemoved`.
   */
  TIDEWIRE_EVENT_BUCKET_REMOVED = 61,
  /**
   * `s3:Scanner:ManyVersions` with `data` as `{"versions": number}`.
   */
  TIDEWIRE_EVENT_SCANNER_MANY_VERSIONS = 62,
  /**
   * `s3:Scanner:LargeVersions` with `data` as `{"versions": number, "bytes": number}`.
   */
  TIDEWIRE_EVENT_SCANNER_LARGE_VERSIONS = 63,
  /**
   * `s3:Scanner:BigPrefix` with `data` as `{"prefixes": number}`.
   */
  TIDEWIRE_EVENT_SCANNER_BIG_PREFIX = 64,
  /**
   * `Configuration:Policy:Put` with `data` as `{"document": any, "previous": any}`.
   */
  TIDEWIRE_EVENT_CONFIGURATION_POLICY_PUT = 70,
  /**
   * `Configuration:Policy:Delete` with `data` as `{"previous": any}`.
   */
  TIDEWIRE_EVENT_CONFIGURATION_POLICY_DELETE = 71,
  /**
   * `Configuration:Acl:Put` with `data` as `{"document": any, "previous": any}`.
   */
  TIDEWIRE_EVENT_CONFIGURATION_ACL_PUT = 72,
  /**
   * `Configuration:Acl:Delete` with `data` as `{"previous": any}`.
   */
  TIDEWIRE_EVENT_CONFIGURATION_ACL_DELETE = 73,
  /**
   * `Configuration:Lifecycle:Put` with `data` as `{"document": any, "previous": any}`.
   */
  TIDEWIRE_EVENT_CONFIGURATION_LIFECYCLE_PUT = 74,
  /**
   * `Configuration:Lifecycle:Delete` with `data` as `{"previous": any}`.
   */
  TIDEWIRE_EVENT_CONFIGURATION_LIFECYCLE_DELETE = 75,
  /**
   * `Configuration:Replication:Put` with `data` as `{"document": any, "previous": any}`.
   */
  TIDEWIRE_EVENT_CONFIGURATION_REPLICATION_PUT = 76,
  /**
   * `Configuration:Replication:Delete` with `data` as `{"previous": any}`.
   */
  TIDEWIRE_EVENT_CONFIGURATION_REPLICATION_DELETE = 77,
  /**
   * `Configuration:Notification:Put` with `data` as `{"document": any, "previous": any}`.
   */
  TIDEWIRE_EVENT_CONFIGURATION_NOTIFICATION_PUT = 78,
  /**
   * `Configuration:Notification:Delete` with `data` as `{"previous": any}`.
   */
  TIDEWIRE_EVENT_CONFIGURATION_NOTIFICATION_DELETE = 79,
  /**
   * `Configuration:Encryption:Put` with `data` as `{"document": any, "previous": any}`.
   */
  TIDEWIRE_EVENT_CONFIGURATION_ENCRYPTION_PUT = 80,
  /**
   * `Configuration:Encryption:Delete` with `data` as `{"previous": any}`.
   */
  TIDEWIRE_EVENT_CONFIGURATION_ENCRYPTION_DELETE = 81,
  /**
   * `Configuration:Versioning:Put` with `data` as `{"document": any, "previous": any}`.
   */
  TIDEWIRE_EVENT_CONFIGURATION_VERSIONING_PUT = 82,
  /**
   * `Configuration:Versioning:Delete` with `data` as `{"previous": any}`.
   */
  TIDEWIRE_EVENT_CONFIGURATION_VERSIONING_DELETE = 83,
  /**
   * `System:Health:Ok` with `data` as `{"component": string, "detail": string}`.
   */
  TIDEWIRE_EVENT_SYSTEM_HEALTH_OK = 90,
  /**
   * `System:Health:Degraded` with `data` as `{"component": string, "detail": string}`.
   */
  TIDEWIRE_EVENT_SYSTEM_HEALTH_DEGRADED = 91,
  /**
   * `System:Health:Failed` with `data` as `{"component": string, "detail": string}`.
   */
  TIDEWIRE_EVENT_SYSTEM_HEALTH_FAILED = 92,
  /**
   * `System:Capacity:Normal` with `data` as `{"component": string, "usedBytes": number, "totalBytes":
   * number, "thresholdPercent": number}`.
   */
  TIDEWIRE_EVENT_SYSTEM_CAPACITY_NORMAL = 95,
  /**
   * `System:Capacity:Warning` with `data` as `{"component": string, "usedBytes": number, "totalBytes":
   * number, "thresholdPercent": number}`.
   */
  TIDEWIRE_EVENT_SYSTEM_CAPACITY_WARNING = 96,
  /**
   * `System:Capacity:Critical` with `data` as `{"component": string, "usedBytes": number, "totalBytes":
   * number, "thresholdPercent": number}`.
   */
  TIDEWIRE_EVENT_SYSTEM_CAPACITY_CRITICAL = 97,
  /**
   * `s3:TestEvent`.
   */
  TIDEWIRE_EVENT_TEST_EVENT = 100,
  /**
   * `System:Destination:Pending` with `data` as `{"destination": string, "reason": string}`.
   */
  TIDEWIRE_EVENT_SYSTEM_DESTINATION_PENDING = 101,
  /**
   * `System:Destination:Verified` with `data` as `{"destination": string, "reason": string}`.
   */
  TIDEWIRE_EVENT_SYSTEM_DESTINATION_VERIFIED = 102,
  /**
   * `System:Destination:Suspended` with `data` as `{"destination": string, "reason": string}`.
   */
  TIDEWIRE_EVENT_SYSTEM_DESTINATION_SUSPENDED = 103,
  /**
   * `System:Destination:Disabled` with `data` as `{"destination": string, "reason": string}`.
   */
  TIDEWIRE_EVENT_SYSTEM_DESTINATION_DISABLED = 104,
  /**
   * `System:Destination:Resumed` with `data` as `{"destination": string, "reason": string}`.
   */
  TIDEWIRE_EVENT_SYSTEM_DESTINATION_RESUMED = 105,
  /**
   * `System:Destination:Failing` with `data` as `{"destination": string, "reason": string, "percent":
   * number}`.
   */
  TIDEWIRE_EVENT_SYSTEM_DESTINATION_FAILING = 106,
  /**
   * `System:Destination:BreakerOpened` with `data` as `{"destination": string, "reason": string}`.
   */
  TIDEWIRE_EVENT_SYSTEM_DESTINATION_BREAKER_OPENED = 107,
};
#ifndef __cplusplus
#if __STDC_VERSION__ >= 202311L
typedef enum tidewire_event_type_t tidewire_event_type_t;
#else
typedef uint32_t tidewire_event_type_t;
#endif // __STDC_VERSION__ >= 202311L
#endif // __cplusplus

/**
 * How important an event is when not everything can be delivered at once.
 */
enum tidewire_priority_t
#if defined(__cplusplus) || __STDC_VERSION__ >= 202311L
  : uint32_t
#endif // defined(__cplusplus) || __STDC_VERSION__ >= 202311L
 {
  /**
   * The ordinary case. The default.
   */
  TIDEWIRE_PRIORITY_NORMAL = 0,
  /**
   * Waits or is shed first.
   */
  TIDEWIRE_PRIORITY_LOW = 1,
  /**
   * Goes on while others wait.
   */
  TIDEWIRE_PRIORITY_HIGH = 2,
};
#ifndef __cplusplus
#if __STDC_VERSION__ >= 202311L
typedef enum tidewire_priority_t tidewire_priority_t;
#else
typedef uint32_t tidewire_priority_t;
#endif // __STDC_VERSION__ >= 202311L
#endif // __cplusplus

/**
 * Who caused an event.
 */
enum tidewire_origin_t
#if defined(__cplusplus) || __STDC_VERSION__ >= 202311L
  : uint32_t
#endif // defined(__cplusplus) || __STDC_VERSION__ >= 202311L
 {
  /**
   * A request of a user or an application. The default.
   */
  TIDEWIRE_ORIGIN_USER = 0,
  /**
   * The store itself, applying a change that came from another site.
   */
  TIDEWIRE_ORIGIN_REPLICA = 1,
  /**
   * The store itself, applying a lifecycle rule.
   */
  TIDEWIRE_ORIGIN_LIFECYCLE = 2,
};
#ifndef __cplusplus
#if __STDC_VERSION__ >= 202311L
typedef enum tidewire_origin_t tidewire_origin_t;
#else
typedef uint32_t tidewire_origin_t;
#endif // __STDC_VERSION__ >= 202311L
#endif // __cplusplus

/**
 * How safe an event is before `tidewire_publish` returns.
 */
enum tidewire_ack_t
#if defined(__cplusplus) || __STDC_VERSION__ >= 202311L
  : uint32_t
#endif // defined(__cplusplus) || __STDC_VERSION__ >= 202311L
 {
  /**
   * It is durable: it survives loss of power, as far as the device tells the truth about its cache. The default.
   */
  TIDEWIRE_ACK_SYNCED = 0,
  /**
   * It was handed to the operating system: it survives the end of the process.
   */
  TIDEWIRE_ACK_WRITTEN = 1,
  /**
   * It is in memory: it is lost if the process dies now. The call does not wait for the disk.
   */
  TIDEWIRE_ACK_MEMORY = 2,
};
#ifndef __cplusplus
#if __STDC_VERSION__ >= 202311L
typedef enum tidewire_ack_t tidewire_ack_t;
#else
typedef uint32_t tidewire_ack_t;
#endif // __STDC_VERSION__ >= 202311L
#endif // __cplusplus

/**
 * What `tidewire_publish` does when there is no space for the event.
 */
enum tidewire_on_full_t
#if defined(__cplusplus) || __STDC_VERSION__ >= 202311L
  : uint32_t
#endif // defined(__cplusplus) || __STDC_VERSION__ >= 202311L
 {
  /**
   * Waits up to `full_timeout_ms`, then answers `TIDEWIRE_FULL`. The default.
   */
  TIDEWIRE_ON_FULL_BLOCK = 0,
  /**
   * Answers `TIDEWIRE_FULL` at once.
   */
  TIDEWIRE_ON_FULL_REFUSE = 1,
};
#ifndef __cplusplus
#if __STDC_VERSION__ >= 202311L
typedef enum tidewire_on_full_t tidewire_on_full_t;
#else
typedef uint32_t tidewire_on_full_t;
#endif // __STDC_VERSION__ >= 202311L
#endif // __cplusplus

/**
 * What became of an event.
 */
enum tidewire_outcome_t
#if defined(__cplusplus) || __STDC_VERSION__ >= 202311L
  : uint32_t
#endif // defined(__cplusplus) || __STDC_VERSION__ >= 202311L
 {
  /**
   * It was not accepted; the result of the call tells why.
   */
  TIDEWIRE_OUTCOME_REFUSED = 0,
  /**
   * It was accepted. With `TIDEWIRE_TIMEOUT` or `TIDEWIRE_LOG_FAILED` as the result of the call, it has not reached
   * the ack level asked for: do not publish it again after a timeout, it is on its way.
   */
  TIDEWIRE_OUTCOME_ACCEPTED = 1,
  /**
   * No rule wants events of this bucket and type. Nothing was copied, nothing will be kept.
   */
  TIDEWIRE_OUTCOME_NO_MATCH = 2,
};
#ifndef __cplusplus
#if __STDC_VERSION__ >= 202311L
typedef enum tidewire_outcome_t tidewire_outcome_t;
#else
typedef uint32_t tidewire_outcome_t;
#endif // __STDC_VERSION__ >= 202311L
#endif // __cplusplus

/**
 * An engine over one data directory: made by `tidewire_open`, ended by `tidewire_close`.
 *
 * All functions that take a `const tidewire_engine_t *` may be called from any threads at the same time, signal
 * handlers excepted. A process may have many engines, each with its own data directory.
 *
 * After `fork`, the child must not use the engine of its parent: calls answer `TIDEWIRE_WRONG_PROCESS`, and
 * `tidewire_close` only frees what the child has of it. The child may open an engine of its own, on another data
 * directory. The parent is not affected.
 */
typedef struct tidewire_engine_t tidewire_engine_t;

/**
 * What went wrong in one call. It belongs to the caller, who frees it with `tidewire_error_free`. It never changes, so
 * any thread may read it.
 *
 * Functions that can fail take the address of a pointer to one as their last argument, `err`. It may be NULL; then
 * only the result tells that something failed. Otherwise the pointer is set in every case: to NULL when the call
 * succeeds, to a new error when it fails. What it pointed to before is not freed.
 */
typedef struct tidewire_error_t tidewire_error_t;

/**
 * A condition on events: made by `tidewire_filter_parse`, freed by `tidewire_filter_free`. It never changes, so any
 * threads may use it at the same time, also in a forked child. No engine is needed.
 */
typedef struct tidewire_filter_t tidewire_filter_t;

/**
 * Bytes that somebody else owns, not NUL-terminated. `data` may be NULL if `len` is 0. Where they are text, they are
 * UTF-8.
 *
 * The library never keeps the pointer after a call, unless the function says so. `tidewire_str("...")` makes one of a C
 * string.
 */
typedef struct tidewire_bytes_t {
  /**
   * The first byte.
   */
  const uint8_t *data;
  /**
   * How many bytes.
   */
  size_t len;
} tidewire_bytes_t;

/**
 * How an engine is opened. Initialise with `TIDEWIRE_OPTIONS_INIT`.
 *
 * Structs that begin with `struct_size` grow at the end in later versions. A library takes the struct of an older
 * header, and uses the defaults for what it lacks. It refuses that of a newer one with `TIDEWIRE_INVALID_ARGUMENT`,
 * because it does not know what it would be ignoring. All bytes zero but `struct_size` is the same as the
 * initialiser.
 */
typedef struct tidewire_options_t {
  /**
   * `sizeof(tidewire_options_t)`.
   */
  size_t struct_size;
  /**
   * The configuration as text (TOML), at most 64 MiB. Paths in it are relative to the current directory. Give this or
   * `config_path`.
   */
  struct tidewire_bytes_t config_text;
  /**
   * The path of a configuration file. Paths in the file are relative to its directory.
   */
  struct tidewire_bytes_t config_path;
  /**
   * The data directory; if it is not empty, the one of the configuration is of no account.
   */
  struct tidewire_bytes_t data_dir;
} tidewire_options_t;

/**
 * A name with a value: UTF-8 both, at most 65535 bytes each.
 */
typedef struct tidewire_pair_t {
  /**
   * Not empty.
   */
  struct tidewire_bytes_t name;
  /**
   * May be empty.
   */
  struct tidewire_bytes_t value;
} tidewire_pair_t;

/**
 * One thing that happened to one resource. Initialise with `TIDEWIRE_EVENT_INIT` and set what is known; what does not
 * apply stays empty. For `struct_size` see `tidewire_options_t`.
 *
 * The library copies what it needs before `tidewire_publish` returns. `key` and `data` are any bytes, all others are
 * UTF-8 of at most 4096 bytes, unless they say otherwise. The whole event takes at most 64 KiB
 * (`engine.event_bytes_max`).
 */
typedef struct tidewire_event_t {
  /**
   * `sizeof(tidewire_event_t)`.
   */
  size_t struct_size;
  /**
   * What happened, by number; or `TIDEWIRE_EVENT_NAMED`, then by `event_type_name`.
   */
  tidewire_event_type_t event_type;
  /**
   * How important it is when not everything can be delivered at once.
   */
  tidewire_priority_t priority;
  /**
   * Who caused it.
   */
  tidewire_origin_t origin;
  /**
   * How many notification handlers this event has already passed through (loop guard).
   */
  uint8_t hops;
  /**
   * Not 0 if `size` is known.
   */
  uint8_t has_size;
  /**
   * Must be 0.
   */
  uint16_t reserved;
  /**
   * When it happened, in nanoseconds since the Unix epoch; 0 means now.
   */
  uint64_t time_ns;
  /**
   * The object's size in bytes, if `has_size` is not 0.
   */
  uint64_t size;
  /**
   * What happened, by name, if `event_type` is `TIDEWIRE_EVENT_NAMED`; empty otherwise. At most 128 bytes.
   */
  struct tidewire_bytes_t event_type_name;
  /**
   * The bucket, 1 to 255 bytes. Empty only for `System:*` events.
   */
  struct tidewire_bytes_t bucket;
  /**
   * The key, 1 to 1024 bytes for events of objects. Events with equal bucket and key are delivered in order.
   */
  struct tidewire_bytes_t key;
  /**
   * The object's version; empty if the bucket is not versioned.
   */
  struct tidewire_bytes_t version_id;
  /**
   * The entity tag, without quotes.
   */
  struct tidewire_bytes_t etag;
  /**
   * Who asked for the operation (principal id).
   */
  struct tidewire_bytes_t requester;
  /**
   * The address that the request came from.
   */
  struct tidewire_bytes_t source_ip;
  /**
   * The id of the request (`x-amz-request-id`).
   */
  struct tidewire_bytes_t request_id;
  /**
   * The second trace id of the request (`x-amz-id-2`).
   */
  struct tidewire_bytes_t host_id;
  /**
   * The region; empty means the region of the engine.
   */
  struct tidewire_bytes_t region;
  /**
   * The object's content type.
   */
  struct tidewire_bytes_t content_type;
  /**
   * The operation as the API names it, such as `PutObject`.
   */
  struct tidewire_bytes_t method;
  /**
   * The client's user agent.
   */
  struct tidewire_bytes_t user_agent;
  /**
   * The principal that owns the bucket.
   */
  struct tidewire_bytes_t bucket_owner;
  /**
   * Data of the host or of the event type's schema: a JSON document, or empty.
   */
  struct tidewire_bytes_t data;
  /**
   * User metadata, names without `x-amz-meta-`: `metadata_count` pairs.
   */
  const struct tidewire_pair_t *metadata;
  /**
   * How many pairs, at most 65535.
   */
  size_t metadata_count;
  /**
   * Object tags: `tags_count` pairs.
   */
  const struct tidewire_pair_t *tags;
  /**
   * How many pairs, at most 65535.
   */
  size_t tags_count;
} tidewire_event_t;

/**
 * How an event is published. Initialise with `TIDEWIRE_PUBLISH_OPTIONS_INIT`. For `struct_size` see
 * `tidewire_options_t`.
 */
typedef struct tidewire_publish_options_t {
  /**
   * `sizeof(tidewire_publish_options_t)`.
   */
  size_t struct_size;
  /**
   * How safe the event is before the call returns.
   */
  tidewire_ack_t ack;
  /**
   * What happens when there is no space.
   */
  tidewire_on_full_t on_full;
  /**
   * How long to wait for space, in milliseconds; 0 means 30000.
   */
  uint64_t full_timeout_ms;
  /**
   * How long to wait for `ack`, in milliseconds; 0 means 30000.
   */
  uint64_t ack_timeout_ms;
} tidewire_publish_options_t;

/**
 * What an engine has counted since it was opened. Initialise with `TIDEWIRE_STATS_INIT`. For `struct_size` see
 * `tidewire_options_t`; a library fills as much of an older program's struct as there is.
 */
typedef struct tidewire_stats_t {
  /**
   * `sizeof(tidewire_stats_t)`.
   */
  size_t struct_size;
  /**
   * Shards.
   */
  uint64_t shards;
  /**
   * Shards whose log failed or waits; the JSON form tells why.
   */
  uint64_t unhealthy_shards;
  /**
   * Destinations that have had deliveries.
   */
  uint64_t destinations;
  /**
   * Events taken from the host.
   */
  uint64_t accepted;
  /**
   * Events refused because there was no space.
   */
  uint64_t refused_full;
  /**
   * Events refused because they were not valid. Those that this interface refused itself (pointers, UTF-8) are not
   * counted.
   */
  uint64_t invalid;
  /**
   * Events that no rule wanted.
   */
  uint64_t no_match;
  /**
   * Events written to the log.
   */
  uint64_t stored;
  /**
   * Deliveries that the stored events call for: one per event and destination.
   */
  uint64_t routed;
  /**
   * Deliveries done.
   */
  uint64_t delivered;
  /**
   * Deliveries given up and kept as dead letters.
   */
  uint64_t dead_lettered;
  /**
   * Deliveries not done yet.
   */
  uint64_t waiting;
  /**
   * Bytes of records written to the log.
   */
  uint64_t log_bytes;
  /**
   * Groups written to the log.
   */
  uint64_t commits;
  /**
   * Times the log was made durable.
   */
  uint64_t syncs;
  /**
   * Segment files of the log.
   */
  uint64_t segments;
  /**
   * Damaged stretches found in the log.
   */
  uint64_t damaged;
  /**
   * Bytes of events on their way into the log.
   */
  uint64_t ring_used_bytes;
  /**
   * Bytes of rendered records held for delivery.
   */
  uint64_t held_bytes;
  /**
   * From acceptance to the destination's answer, in microseconds: half of the deliveries took at most so long.
   */
  uint64_t latency_us_p50;
  /**
   * The same for 99 of 100.
   */
  uint64_t latency_us_p99;
  /**
   * The same for 999 of 1000.
   */
  uint64_t latency_us_p999;
  /**
   * The longest.
   */
  uint64_t latency_us_max;
} tidewire_stats_t;

#ifdef __cplusplus
extern "C" {
#endif // __cplusplus

/**
 * Opens an engine.
 *
 * What an earlier run left undelivered in the data directory goes on. Destinations are not contacted yet, so one that
 * is down delays nothing. The engine runs a few threads per shard, on which all signals but those of faults are blocked;
 * it installs no handlers. The sources of the configuration are for the `tidewire` command, and are not started.
 *
 * `options`: read during the call only.
 * `engine_out`: set to the new engine, or to NULL if it fails. End it with `tidewire_close`.
 * `err`: see `tidewire_error_t`; may be NULL.
 *
 * Fails with `TIDEWIRE_INVALID_ARGUMENT`, `_INVALID_CONFIG`, `_IO_URING_UNAVAILABLE`, `_LOCKED`, `_READ_ONLY`,
 * `_NO_SPACE`, `_NEWER_FORMAT`, `_CORRUPT` or `_IO`.
 */
tidewire_result_t tidewire_open(const struct tidewire_options_t *options,
                                struct tidewire_engine_t **engine_out,
                                struct tidewire_error_t **err);

/**
 * Waits until every event that was accepted before the call is delivered or a dead letter.
 *
 * `timeout_ms`: how long to wait; 0 asks whether it is so now.
 *
 * Fails with `TIDEWIRE_TIMEOUT` (the message tells how many deliveries still wait; they go on), `_CLOSED`,
 * `_WRONG_PROCESS` or `_INVALID_ARGUMENT`.
 */
tidewire_result_t tidewire_flush(const struct tidewire_engine_t *engine,
                                 uint64_t timeout_ms,
                                 struct tidewire_error_t **err);

/**
 * Closes an engine and frees it: takes no more events, writes and syncs what was accepted, delivers until the timeout,
 * and leaves the rest in the data directory for the next opening. When it returns, no file or socket of the engine is
 * left and its shards have ended; a helper thread of each may take a moment more.
 *
 * `engine`: the address of the pointer to the engine, which is set to NULL before anything else, whatever the result
 * is. NULL, and the address of NULL, are allowed and do nothing, so that closing twice does no harm. No other call
 * with this engine may be running or follow, and it must not be called from a signal handler.
 * `timeout_ms`: how long to deliver; 0 only makes durable what was accepted; `TIDEWIRE_TIMEOUT_CONFIGURED` takes the
 * time of the configuration.
 *
 * Fails with `TIDEWIRE_INTERNAL` if a shard ended badly, `_WRONG_PROCESS` in a forked child (where it frees the
 * child's copy, and the engine of the parent goes on), or `_PANIC`. Events that are not delivered in time are no
 * failure.
 */
tidewire_result_t tidewire_close(struct tidewire_engine_t **engine,
                                 uint64_t timeout_ms,
                                 struct tidewire_error_t **err);

/**
 * What kind of error it is: the same as the result of the call that made it. `TIDEWIRE_OK` for NULL.
 */
tidewire_result_t tidewire_error_code(const struct tidewire_error_t *error);

/**
 * What happened, where, and what to do about it, for people: one line of UTF-8, NUL-terminated. It lives as long as
 * the error. Empty for NULL. The wording is not stable; programs look at the code. It contains no secrets.
 */
const char *tidewire_error_message(const struct tidewire_error_t *error);

/**
 * Frees an error. NULL is allowed.
 */
void tidewire_error_free(struct tidewire_error_t *error);

/**
 * Reads a filter.
 *
 * `format`: how it is written.
 * `text`: read during the call only; UTF-8, at most 4 MiB.
 * `filter_out`: set to the new filter, or to NULL if it fails. Free it with `tidewire_filter_free`.
 * `err`: see `tidewire_error_t`; may be NULL.
 *
 * What is not understood is refused, with the place and a remedy; nothing is skipped. Filters of CloudEvents and
 * EventBridge that look at the source or the region are read for an engine with the defaults (`aws:s3`, `us-east-1`).
 *
 * Fails with `TIDEWIRE_INVALID_CONFIG` or `_INVALID_ARGUMENT`.
 */
tidewire_result_t tidewire_filter_parse(tidewire_filter_format_t format,
                                        struct tidewire_bytes_t text,
                                        struct tidewire_filter_t **filter_out,
                                        struct tidewire_error_t **err);

/**
 * Whether an event passes.
 *
 * `event`: read during the call only. It must be one that `tidewire_publish` would take. One without a time happens now.
 * `passes_out`: set to the answer; to false if the call fails.
 *
 * Fails with `TIDEWIRE_INVALID_EVENT` or `_INVALID_ARGUMENT`.
 */
tidewire_result_t tidewire_filter_matches(const struct tidewire_filter_t *filter,
                                          const struct tidewire_event_t *event,
                                          bool *passes_out,
                                          struct tidewire_error_t **err);

/**
 * Why an event does not pass: the first condition that it does not meet, and what it has instead, for people. The
 * wording is not stable. Empty if it passes.
 *
 * `event`: as for `tidewire_filter_matches`.
 * `text_out`: set to NUL-terminated UTF-8, or to NULL if the call fails. Free it with `tidewire_string_free`.
 * `len_out`: set to its length in bytes without the NUL; may be NULL.
 *
 * Fails with `TIDEWIRE_INVALID_EVENT` or `_INVALID_ARGUMENT`.
 */
tidewire_result_t tidewire_filter_explain(const struct tidewire_filter_t *filter,
                                          const struct tidewire_event_t *event,
                                          char **text_out,
                                          size_t *len_out,
                                          struct tidewire_error_t **err);

/**
 * What a filter is compiled to: the condition that it is filed under in the index of an engine, what is checked then,
 * and what that costs, for people. The wording is not stable.
 *
 * `text_out`, `len_out`: as for `tidewire_filter_explain`.
 *
 * Fails with `TIDEWIRE_INVALID_ARGUMENT`.
 */
tidewire_result_t tidewire_filter_plan(const struct tidewire_filter_t *filter,
                                       char **text_out,
                                       size_t *len_out,
                                       struct tidewire_error_t **err);

/**
 * As `tidewire_filter_plan`, as a JSON object. Its member `cost` is `never`, `indexed`, `free`, `compare` or `scan`; with
 * the last two each event of an engine is tried. Later versions may add members.
 *
 * `json_out`, `len_out`: as for `tidewire_filter_explain`.
 *
 * Fails with `TIDEWIRE_INVALID_ARGUMENT`.
 */
tidewire_result_t tidewire_filter_plan_json(const struct tidewire_filter_t *filter,
                                            char **json_out,
                                            size_t *len_out,
                                            struct tidewire_error_t **err);

/**
 * A filter in the native JSON form, whatever it was written in. Read again, it passes the same events.
 *
 * `json_out`, `len_out`: as for `tidewire_filter_explain`.
 *
 * Fails with `TIDEWIRE_INVALID_ARGUMENT`.
 */
tidewire_result_t tidewire_filter_json(const struct tidewire_filter_t *filter,
                                       char **json_out,
                                       size_t *len_out,
                                       struct tidewire_error_t **err);

/**
 * Frees a filter. NULL is allowed.
 */
void tidewire_filter_free(struct tidewire_filter_t *filter);

/**
 * The JSON Schema (draft 2020-12) of filters in the native form, NUL-terminated. The text is static. Any thread may call
 * it at any time.
 */
const char *tidewire_filter_schema(void);

/**
 * Looks for rules of a configuration that never want an event, that always do in spite of their conditions, that say the
 * same, or that may want the same event for the same destination.
 *
 * `config_text`: the configuration (TOML), at most 64 MiB, or a part of it with rules and filters; destinations and a data
 * directory are not needed. Paths in it are relative to the current directory.
 * `json_out`: set to a JSON list of objects with `kind` (`never`, `always`, `same`, `overlap` or `unfinished`), `rules` (the
 * ids that it is about) and `message`; empty if nothing was found. NUL-terminated UTF-8, or NULL if the call fails. Free it
 * with `tidewire_string_free`.
 * `len_out`: set to its length in bytes without the NUL; may be NULL.
 *
 * Fails with `TIDEWIRE_INVALID_CONFIG`, `_INVALID_ARGUMENT` or `_IO`.
 */
tidewire_result_t tidewire_lint(struct tidewire_bytes_t config_text,
                                char **json_out,
                                size_t *len_out,
                                struct tidewire_error_t **err);

/**
 * Publishes an event.
 *
 * By default the call returns when the event is durable; many threads share the waiting for the disk. With
 * `TIDEWIRE_ACK_MEMORY` it waits for nothing, unless there is no space. It never waits for a destination. Events of one
 * bucket and key are delivered in the order of the calls.
 *
 * `event`: read during the call only; the caller keeps it and everything that it points to.
 * `options`: NULL for the defaults.
 * `outcome_out`: set to what became of the event, also when the call fails; may be NULL.
 *
 * Fails with `TIDEWIRE_INVALID_EVENT`, `_INVALID_ARGUMENT`, `_FULL`, `_CLOSED`, `_WRONG_PROCESS`: the event was not
 * accepted. With `TIDEWIRE_TIMEOUT` or `_LOG_FAILED` it may have been, and the outcome tells.
 */
tidewire_result_t tidewire_publish(const struct tidewire_engine_t *engine,
                                   const struct tidewire_event_t *event,
                                   const struct tidewire_publish_options_t *options,
                                   tidewire_outcome_t *outcome_out,
                                   struct tidewire_error_t **err);

/**
 * Whether any rule could want events of this bucket and type: if not, the host need not collect what an event would
 * say. It takes some nanoseconds.
 *
 * `event`: only its bucket and type are looked at.
 *
 * Also true for an event that no rule takes in the end; and true if anything is wrong with the arguments, so that
 * nothing is lost in silence: `tidewire_publish` then tells what it is.
 */
bool tidewire_is_interested(const struct tidewire_engine_t *engine,
                            const struct tidewire_event_t *event);

/**
 * Fills in what the engine has counted. The numbers are taken one after the other while the engine runs, so they need
 * not add up exactly.
 *
 * `stats_out`: initialised with `TIDEWIRE_STATS_INIT`; unchanged if the call fails.
 *
 * Fails with `TIDEWIRE_INVALID_ARGUMENT` or `_WRONG_PROCESS`.
 */
tidewire_result_t tidewire_stats(const struct tidewire_engine_t *engine,
                                 struct tidewire_stats_t *stats_out,
                                 struct tidewire_error_t **err);

/**
 * What the engine has counted, as a JSON object: the numbers of `tidewire_stats_t`, what is wrong with each unhealthy
 * shard, and the numbers and last error of each destination. Later versions may add members.
 *
 * `json_out`: set to NUL-terminated UTF-8, or to NULL if the call fails. Free it with `tidewire_string_free`.
 * `len_out`: set to its length in bytes without the NUL; may be NULL.
 *
 * Fails with `TIDEWIRE_INVALID_ARGUMENT` or `_WRONG_PROCESS`.
 */
tidewire_result_t tidewire_stats_json(const struct tidewire_engine_t *engine,
                                      char **json_out,
                                      size_t *len_out,
                                      struct tidewire_error_t **err);

/**
 * Frees a string that this library made. NULL is allowed.
 */
void tidewire_string_free(char *string);

/**
 * The version of the library in use, such as `0.1.0`. The text is static. Any thread may call it at any time.
 */
const char *tidewire_version(void);

/**
 * The version of the library in use as a number: major * 1000000 + minor * 1000 + patch. Any thread may call it at any
 * time.
 */
uint32_t tidewire_version_number(void);

#ifdef __cplusplus
}  // extern "C"
#endif  // __cplusplus

#ifdef __cplusplus
/** @private What the initialisers are in C++, where designators come late. */
template <typename T> inline T tidewire_initialised_() {
  T t = T();
  t.struct_size = sizeof(T);
  return t;
}
#define TIDEWIRE_OPTIONS_INIT tidewire_initialised_<tidewire_options_t>()
#define TIDEWIRE_EVENT_INIT tidewire_initialised_<tidewire_event_t>()
#define TIDEWIRE_PUBLISH_OPTIONS_INIT tidewire_initialised_<tidewire_publish_options_t>()
#define TIDEWIRE_STATS_INIT tidewire_initialised_<tidewire_stats_t>()
#else
/** The initial value of a `tidewire_options_t`. */
#define TIDEWIRE_OPTIONS_INIT { .struct_size = sizeof(tidewire_options_t) }
/** The initial value of a `tidewire_event_t`. */
#define TIDEWIRE_EVENT_INIT { .struct_size = sizeof(tidewire_event_t) }
/** The initial value of a `tidewire_publish_options_t`. */
#define TIDEWIRE_PUBLISH_OPTIONS_INIT { .struct_size = sizeof(tidewire_publish_options_t) }
/** The initial value of a `tidewire_stats_t`. */
#define TIDEWIRE_STATS_INIT { .struct_size = sizeof(tidewire_stats_t) }
#endif

/**
 * `len` bytes at `data`, as an argument. Nothing is copied.
 */
static inline tidewire_bytes_t tidewire_bytes(const void *data, size_t len) {
  tidewire_bytes_t bytes;
  bytes.data = (const uint8_t *)data;
  bytes.len = len;
  return bytes;
}

/**
 * A NUL-terminated string as an argument, without the NUL; NULL is the empty one. Nothing is copied.
 */
static inline tidewire_bytes_t tidewire_str(const char *string) {
  return tidewire_bytes(string, string ? strlen(string) : 0);
}

#endif /* TIDEWIRE_H */
