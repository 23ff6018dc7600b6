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
 * Bytes of a token, with the NUL at its end.
 */
#define TIDEWIRE_TOKEN_BYTES 39

/**
 * For `expect`: whatever is there.
 */
#define TIDEWIRE_EXPECT_ANYTHING 0

/**
 * For `expect`: nothing of that name is there.
 */
#define TIDEWIRE_EXPECT_ABSENT UINT64_MAX

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
  /**
   * The engine is another process's, which cannot be reached; it is tried again and again. What was published and not
   * acknowledged may have been accepted or not.
   */
  TIDEWIRE_DISCONNECTED = 20,
};
#ifndef __cplusplus
#if __STDC_VERSION__ >= 202311L
typedef enum tidewire_result_t tidewire_result_t;
#else
typedef uint32_t tidewire_result_t;
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
 * Which details of an event are of use; several may be, added up.
 */
enum tidewire_details_wanted_t
#if defined(__cplusplus) || __STDC_VERSION__ >= 202311L
  : uint32_t
#endif // defined(__cplusplus) || __STDC_VERSION__ >= 202311L
 {
  /**
   * None.
   */
  TIDEWIRE_DETAILS_NONE = 0,
  /**
   * Its metadata.
   */
  TIDEWIRE_DETAILS_METADATA = 1,
  /**
   * Its tags.
   */
  TIDEWIRE_DETAILS_TAGS = 2,
};
#ifndef __cplusplus
#if __STDC_VERSION__ >= 202311L
typedef enum tidewire_details_wanted_t tidewire_details_wanted_t;
#else
typedef uint32_t tidewire_details_wanted_t;
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
  /**
   * It was accepted before (the same `dedup_key`, or a cursor that is not above an earlier one) and is not accepted
   * again. The one that was has reached the ack level asked for, unless the result of the call says otherwise.
   */
  TIDEWIRE_OUTCOME_DUPLICATE = 3,
};
#ifndef __cplusplus
#if __STDC_VERSION__ >= 202311L
typedef enum tidewire_outcome_t tidewire_outcome_t;
#else
typedef uint32_t tidewire_outcome_t;
#endif // __STDC_VERSION__ >= 202311L
#endif // __cplusplus

/**
 * What becomes of what waits for a destination that is changed or deleted.
 */
enum tidewire_backlog_t
#if defined(__cplusplus) || __STDC_VERSION__ >= 202311L
  : uint32_t
#endif // defined(__cplusplus) || __STDC_VERSION__ >= 202311L
 {
  /**
   * It goes on to the destination as it is from now on; of one that is deleted, it is drained. The default.
   */
  TIDEWIRE_BACKLOG_KEEP = 0,
  /**
   * It is delivered with the settings of before.
   */
  TIDEWIRE_BACKLOG_DRAIN = 1,
  /**
   * It becomes dead letters.
   */
  TIDEWIRE_BACKLOG_DEAD_LETTER = 2,
  /**
   * It is dropped, counted and audited.
   */
  TIDEWIRE_BACKLOG_PURGE = 3,
  /**
   * It goes to another destination, before what that one gets from now on.
   */
  TIDEWIRE_BACKLOG_MOVE = 4,
};
#ifndef __cplusplus
#if __STDC_VERSION__ >= 202311L
typedef enum tidewire_backlog_t tidewire_backlog_t;
#else
typedef uint32_t tidewire_backlog_t;
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
 * How important a message is.
 */
enum tidewire_log_level_t
#if defined(__cplusplus) || __STDC_VERSION__ >= 202311L
  : uint32_t
#endif // defined(__cplusplus) || __STDC_VERSION__ >= 202311L
 {
  /**
   * Something is lost or stands still until somebody acts.
   */
  TIDEWIRE_LOG_ERROR = 1,
  /**
   * Something is not as it should be.
   */
  TIDEWIRE_LOG_WARN = 2,
  /**
   * What an operator may want to know.
   */
  TIDEWIRE_LOG_INFO = 3,
  /**
   * For who looks for a fault.
   */
  TIDEWIRE_LOG_DEBUG = 4,
  /**
   * Everything.
   */
  TIDEWIRE_LOG_TRACE = 5,
};
#ifndef __cplusplus
#if __STDC_VERSION__ >= 202311L
typedef enum tidewire_log_level_t tidewire_log_level_t;
#else
typedef uint32_t tidewire_log_level_t;
#endif // __STDC_VERSION__ >= 202311L
#endif // __cplusplus

/**
 * The encoding of a notification document.
 */
enum tidewire_notification_format_t
#if defined(__cplusplus) || __STDC_VERSION__ >= 202311L
  : uint32_t
#endif // defined(__cplusplus) || __STDC_VERSION__ >= 202311L
 {
  /**
   * The first character tells. The default.
   */
  TIDEWIRE_NOTIFICATION_AUTO = 0,
  /**
   * `<NotificationConfiguration>`, as the API of S3 takes it.
   */
  TIDEWIRE_NOTIFICATION_XML = 1,
  /**
   * `{"QueueConfigurations": […]}`, as the AWS tools write it.
   */
  TIDEWIRE_NOTIFICATION_JSON = 2,
};
#ifndef __cplusplus
#if __STDC_VERSION__ >= 202311L
typedef enum tidewire_notification_format_t tidewire_notification_format_t;
#else
typedef uint32_t tidewire_notification_format_t;
#endif // __STDC_VERSION__ >= 202311L
#endif // __cplusplus

/**
 * What to do about rules of one notification document that want the same event.
 */
enum tidewire_overlap_t
#if defined(__cplusplus) || __STDC_VERSION__ >= 202311L
  : uint32_t
#endif // defined(__cplusplus) || __STDC_VERSION__ >= 202311L
 {
  /**
   * They are accepted; a destination hears of an event once. The default.
   */
  TIDEWIRE_OVERLAP_ALLOW_DEDUPE = 0,
  /**
   * They are refused, as AWS does.
   */
  TIDEWIRE_OVERLAP_STRICT_AWS = 1,
  /**
   * They are accepted; a destination hears of an event once per rule.
   */
  TIDEWIRE_OVERLAP_ALLOW_ALL = 2,
};
#ifndef __cplusplus
#if __STDC_VERSION__ >= 202311L
typedef enum tidewire_overlap_t tidewire_overlap_t;
#else
typedef uint32_t tidewire_overlap_t;
#endif // __STDC_VERSION__ >= 202311L
#endif // __cplusplus

/**
 * How the filter values of a notification document are written.
 */
enum tidewire_filter_values_t
#if defined(__cplusplus) || __STDC_VERSION__ >= 202311L
  : uint32_t
#endif // defined(__cplusplus) || __STDC_VERSION__ >= 202311L
 {
  /**
   * As the bytes of the key. The default.
   */
  TIDEWIRE_FILTER_VALUES_RAW = 0,
  /**
   * Form-encoded, as AWS compares them (`my+photos/`); decoded when read.
   */
  TIDEWIRE_FILTER_VALUES_ENCODED = 1,
};
#ifndef __cplusplus
#if __STDC_VERSION__ >= 202311L
typedef enum tidewire_filter_values_t tidewire_filter_values_t;
#else
typedef uint32_t tidewire_filter_values_t;
#endif // __STDC_VERSION__ >= 202311L
#endif // __cplusplus

/**
 * What a notification document may say beyond S3.
 */
enum tidewire_extensions_t
#if defined(__cplusplus) || __STDC_VERSION__ >= 202311L
  : uint32_t
#endif // defined(__cplusplus) || __STDC_VERSION__ >= 202311L
 {
  /**
   * Nothing. The default.
   */
  TIDEWIRE_EXTENSIONS_NONE = 0,
  /**
   * What Ceph understands: `regex` in `S3Key`, `S3Metadata`, `S3Tags`, and `Type` of a rule.
   */
  TIDEWIRE_EXTENSIONS_CEPH = 1,
};
#ifndef __cplusplus
#if __STDC_VERSION__ >= 202311L
typedef enum tidewire_extensions_t tidewire_extensions_t;
#else
typedef uint32_t tidewire_extensions_t;
#endif // __STDC_VERSION__ >= 202311L
#endif // __cplusplus

/**
 * Where in the log reading begins.
 */
enum tidewire_from_t
#if defined(__cplusplus) || __STDC_VERSION__ >= 202311L
  : uint32_t
#endif // defined(__cplusplus) || __STDC_VERSION__ >= 202311L
 {
  /**
   * Behind the newest event. The default.
   */
  TIDEWIRE_FROM_NOW = 0,
  /**
   * With the oldest event that there is.
   */
  TIDEWIRE_FROM_BEGINNING = 1,
  /**
   * With the first event whose clock is at least `from_ns`.
   */
  TIDEWIRE_FROM_TIME = 2,
  /**
   * Where a tail stopped: behind `position`. What has been removed since then is told as a gap.
   */
  TIDEWIRE_FROM_POSITION = 3,
};
#ifndef __cplusplus
#if __STDC_VERSION__ >= 202311L
typedef enum tidewire_from_t tidewire_from_t;
#else
typedef uint32_t tidewire_from_t;
#endif // __STDC_VERSION__ >= 202311L
#endif // __cplusplus

/**
 * Why a stretch of the log is missing.
 */
enum tidewire_gap_t
#if defined(__cplusplus) || __STDC_VERSION__ >= 202311L
  : uint32_t
#endif // defined(__cplusplus) || __STDC_VERSION__ >= 202311L
 {
  /**
   * Nothing is missing.
   */
  TIDEWIRE_GAP_NONE = 0,
  /**
   * It was removed: everything had been delivered, and retention did not keep it, or not so long.
   */
  TIDEWIRE_GAP_REMOVED = 1,
  /**
   * The bytes there are no records.
   */
  TIDEWIRE_GAP_DAMAGED = 2,
};
#ifndef __cplusplus
#if __STDC_VERSION__ >= 202311L
typedef enum tidewire_gap_t tidewire_gap_t;
#else
typedef uint32_t tidewire_gap_t;
#endif // __STDC_VERSION__ >= 202311L
#endif // __cplusplus

/**
 * What of a reservation survives a crash between the operation and its commit.
 */
enum tidewire_intent_t
#if defined(__cplusplus) || __STDC_VERSION__ >= 202311L
  : uint32_t
#endif // defined(__cplusplus) || __STDC_VERSION__ >= 202311L
 {
  /**
   * Nothing: the event is lost then. Costs no I/O. The default.
   */
  TIDEWIRE_INTENT_NONE = 0,
  /**
   * It is in the log and synced before the call returns: the next opening asks what became of the operation
   * (`tidewire_in_doubt`).
   */
  TIDEWIRE_INTENT_DURABLE = 1,
};
#ifndef __cplusplus
#if __STDC_VERSION__ >= 202311L
typedef enum tidewire_intent_t tidewire_intent_t;
#else
typedef uint32_t tidewire_intent_t;
#endif // __STDC_VERSION__ >= 202311L
#endif // __cplusplus

/**
 * The form of a text of metrics.
 */
enum tidewire_metrics_format_t
#if defined(__cplusplus) || __STDC_VERSION__ >= 202311L
  : uint32_t
#endif // defined(__cplusplus) || __STDC_VERSION__ >= 202311L
 {
  /**
   * Prometheus' text format, version 0.0.4. The default.
   */
  TIDEWIRE_METRICS_PROMETHEUS = 0,
  /**
   * OpenMetrics 1.0.
   */
  TIDEWIRE_METRICS_OPENMETRICS = 1,
};
#ifndef __cplusplus
#if __STDC_VERSION__ >= 202311L
typedef enum tidewire_metrics_format_t tidewire_metrics_format_t;
#else
typedef uint32_t tidewire_metrics_format_t;
#endif // __STDC_VERSION__ >= 202311L
#endif // __cplusplus

/**
 * Some events of a destination that the host serves itself, with the duty to say what became of them. A handler gets it,
 * and answers with one of `tidewire_batch_accept`, `_accept_but`, `_retry`, `_retry_after` and `_refuse`, then or later,
 * from any thread; or it lets go with `tidewire_batch_free`. An answer that does not come within the destination's `timeout` counts as none: the events are tried
 * again, and what is said later changes nothing, but still frees the batch.
 *
 * Functions that take a `const tidewire_batch_t *` may be called from any threads at the same time, until it is answered.
 * What they give lives as long.
 */
typedef struct tidewire_batch_t tidewire_batch_t;

/**
 * A queue of completions: tells which of the events that were submitted with it have reached their ack level. Made by
 * `tidewire_completions_open`, ended by `tidewire_completions_free`.
 *
 * All functions that take a `const tidewire_completions_t *` may be called from any threads at the same time.
 */
typedef struct tidewire_completions_t tidewire_completions_t;

/**
 * A member of a group of consumers: made by `tidewire_consumer_open`, freed with `tidewire_consumer_free`, which gives back
 * what it has; the group stays.
 *
 * Its functions may be called from any threads at the same time. It keeps the engine's memory, but does not keep it from
 * closing.
 */
typedef struct tidewire_consumer_t tidewire_consumer_t;

/**
 * An engine over one data directory: made by `tidewire_open`, ended by `tidewire_close`. It is this process's own, or that of
 * another one, to which this process is connected; all functions are the same.
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
 * What an enricher adds to the event that it was called with. It belongs to the library, and is good until the call returns,
 * on the thread of the call.
 */
typedef struct tidewire_enrichment_t tidewire_enrichment_t;

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
 * What was read: freed with `tidewire_items_free`. It never changes, so any thread may read it.
 */
typedef struct tidewire_items_t tidewire_items_t;

/**
 * A replay: made by `tidewire_replay_start`, freed with `tidewire_replay_free`, which does not end it. Its functions may be
 * called from any threads at the same time.
 */
typedef struct tidewire_replay_t tidewire_replay_t;

/**
 * Space for one event, and the promise that its commit is not refused for want of it: made by `tidewire_reserve` before an
 * operation, committed or aborted after it, and freed with `tidewire_reservation_free`.
 *
 * It may be used from any threads, also at the same time: one of a commit and an abort that race wins. It keeps the
 * engine's memory, but does not keep it from closing; a commit after that answers `TIDEWIRE_CLOSED`.
 */
typedef struct tidewire_reservation_t tidewire_reservation_t;

/**
 * A tail: the events of the log from some place on, and then each one as it is published. Made by `tidewire_tail_open`, freed
 * with `tidewire_tail_free`.
 *
 * It reads the log's files on the thread that asks it: however slow that is, nothing else waits for it, and its memory does
 * not grow. It keeps nothing in the log; what is removed before it was read comes as a gap. Threads that use it at the same
 * time wait for each other. It keeps the engine's memory, but does not keep it from closing.
 */
typedef struct tidewire_tail_t tidewire_tail_t;

/**
 * An event that has reached its ack level, or never will.
 */
typedef struct tidewire_completion_t {
  /**
   * As it was given with the event.
   */
  uint64_t user_data;
  /**
   * `TIDEWIRE_OK` if the level is reached, else why it never will be: `TIDEWIRE_LOG_FAILED` or `TIDEWIRE_CLOSED`.
   */
  tidewire_result_t result;
  /**
   * 0.
   */
  uint32_t reserved;
} tidewire_completion_t;

/**
 * Called with completions, by one thread of the queue. They may be read during the call only. It may publish, submit and
 * reserve. While it runs no other completions of the queue are told. It must not throw, end its thread, or free the
 * queue.
 */
typedef void (*tidewire_completions_callback_t)(void *callback_data,
                                                const struct tidewire_completion_t *completions,
                                                size_t count);

/**
 * How a queue of completions is opened. Initialise with `TIDEWIRE_COMPLETIONS_OPTIONS_INIT`. For `struct_size` see
 * `tidewire_options_t`.
 */
typedef struct tidewire_completions_options_t {
  /**
   * `sizeof(tidewire_completions_options_t)`.
   */
  size_t struct_size;
  /**
   * NULL: the host watches `tidewire_completions_fd` and calls `tidewire_completions_take`. Otherwise the queue has a
   * thread of its own, which calls this; then there is nothing to be taken.
   */
  tidewire_completions_callback_t callback;
  /**
   * Handed to the callback.
   */
  void *callback_data;
} tidewire_completions_options_t;

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
 * Metadata and tags of an event.
 */
typedef struct tidewire_details_t {
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
} tidewire_details_t;

/**
 * Fetches details of an event that the host does not have at hand. It is called within the call that the event is given to,
 * by the same thread, once at most: if a rule that may want the event, by its type, bucket and key, looks at metadata or tags
 * or keeps the event, or a destination that it would go to has them in its records. It is not called by `tidewire_reserve`
 * and its like: see `tidewire_details_wanted`.
 *
 * `wanted`: the sum of the `TIDEWIRE_DETAILS_` that are of use and that the event does not have.
 * `details_out`: all zero; to be filled with those. What its pointers lead to stays as it is until the call that the event was
 * given to returns.
 *
 * Answers 0. With any other answer the event is refused (`TIDEWIRE_INVALID_EVENT`).
 */
typedef int (*tidewire_fetch_callback_t)(void *fetch_data,
                                         tidewire_details_wanted_t wanted,
                                         struct tidewire_details_t *details_out);

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
  /**
   * Fetches metadata and tags that are not given above, if they are of use: see `tidewire_fetch_callback_t`. NULL if there
   * are none but those.
   */
  tidewire_fetch_callback_t fetch;
  /**
   * Handed to `fetch`.
   */
  void *fetch_data;
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
  /**
   * By what repeats of this publication are recognised, such as the id of a request: a second event of the same bucket
   * and key with the same one, within `engine.dedup.window`, is not accepted. Any bytes, at most 1024; empty means
   * that there is none.
   */
  struct tidewire_bytes_t dedup_key;
} tidewire_publish_options_t;

/**
 * Which dead letters are meant: those for which everything that is set holds. Initialise with
 * `TIDEWIRE_DEAD_LETTER_FILTER_INIT`, which means all. For `struct_size` see `tidewire_options_t`.
 */
typedef struct tidewire_dead_letter_filter_t {
  /**
   * `sizeof(tidewire_dead_letter_filter_t)`.
   */
  size_t struct_size;
  /**
   * Only these: ids as the export has them (`0-17`), with spaces between.
   */
  struct tidewire_bytes_t ids;
  /**
   * Of this destination, which need not be configured any more.
   */
  struct tidewire_bytes_t destination;
  /**
   * Of this bucket.
   */
  struct tidewire_bytes_t bucket;
  /**
   * Of keys that begin so; any bytes.
   */
  struct tidewire_bytes_t key_prefix;
  /**
   * With this text in the reason.
   */
  struct tidewire_bytes_t reason;
  /**
   * Given up at this time or later, in nanoseconds since the Unix epoch; 0 means whenever.
   */
  uint64_t from_ns;
  /**
   * Given up before this time, in nanoseconds since the Unix epoch; 0 means whenever.
   */
  uint64_t before_ns;
} tidewire_dead_letter_filter_t;

/**
 * Called with a piece of what is written, `len` bytes at `data`, which may be read during the call only. 0 goes on;
 * anything else ends the writing.
 */
typedef int (*tidewire_write_callback_t)(void *callback_data, const uint8_t *data, size_t len);

/**
 * Says the time, in nanoseconds since the Unix epoch. Events that tell no time of their own are told it by this, and the log,
 * ages, retention and windows go by it. Waiting does not, and what other machines compare with theirs goes by the machine's
 * clock: signatures, tokens, certificates, the times when a secret is valid, states of destinations.
 *
 * Any thread calls it, for each event, so it must be quick and must not wait for anything, nor call this library. It may go
 * backwards: no sequencer becomes smaller than an earlier one, and no age larger. Where it jumps ahead, what is there is as old
 * as it says. A time beyond the year 2262 is that year, and 0 is 1.
 */
typedef uint64_t (*tidewire_clock_callback_t)(void *clock_data);

/**
 * Called when what was handed to callbacks is no longer needed.
 */
typedef void (*tidewire_release_callback_t)(void *callback_data);

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
   * The configuration as text (TOML), at most 64 MiB. Paths in it are relative to the current directory. Give this,
   * `config_path` or `address`.
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
  /**
   * The engine of another process: `unix:` and the path of the socket where it listens (`[engine.shared]` of its
   * configuration). Then there is no configuration here.
   */
  struct tidewire_bytes_t address;
  /**
   * How long to wait for that process to listen, in milliseconds, and for the connection to come back in calls that have no
   * time of their own; 0 means 5000.
   */
  uint64_t connect_timeout_ms;
  /**
   * Not 0: the engine of this configuration is for several processes, which all open it like this. The first has the data
   * directory and listens at `engine.shared.socket`, the others are connected to it; when it ends, one of them takes it
   * over.
   */
  uint32_t shared;
  /**
   * Must be 0.
   */
  uint32_t reserved;
  /**
   * The wall clock; NULL means that of the machine. See `tidewire_clock_callback_t`.
   */
  tidewire_clock_callback_t clock;
  /**
   * Handed to `clock`.
   */
  void *clock_data;
  /**
   * Called once, when `clock` will not be called any more, with `clock_data`; may be NULL. If the engine could not be opened
   * it is not called.
   */
  tidewire_release_callback_t clock_release;
} tidewire_options_t;

/**
 * Called with one event after the other, for each shard by a thread of its own, so from several threads at the same time where
 * there are several shards. `event` and what it points to are good until it returns. What it adds it says by
 * `tidewire_enrich_set_metadata`, `tidewire_enrich_set_tag` and `tidewire_enrich_set_data`, or `tidewire_enrich_fail`. It may
 * block, but not wait for an ack of the same engine. It must not throw or end its thread.
 */
typedef void (*tidewire_enrich_callback_t)(void *callback_data,
                                           const struct tidewire_event_t *event,
                                           struct tidewire_enrichment_t *enrichment);

/**
 * What enriches events. Initialise with `TIDEWIRE_ENRICHER_INIT`. For `struct_size` see `tidewire_options_t`.
 */
typedef struct tidewire_enricher_t {
  /**
   * `sizeof(tidewire_enricher_t)`.
   */
  size_t struct_size;
  /**
   * Called with each event.
   */
  tidewire_enrich_callback_t callback;
  /**
   * Handed to the callback.
   */
  void *callback_data;
  /**
   * Called once, when the callback will not be called any more, with the callback's data; may be NULL. If the enricher could
   * not be set it is not called.
   */
  tidewire_release_callback_t release;
  /**
   * How long it may take for an event, in milliseconds, 1 to 60000; 0 means 100.
   */
  uint64_t timeout_ms;
  /**
   * What is added to an event for which it took too long, failed, or said something that cannot be: metadata and tags.
   * Without any the event stays as it is. So does one that would be too large with them.
   */
  const struct tidewire_pair_t *fallback_metadata;
  /**
   * How many.
   */
  size_t fallback_metadata_count;
  /**
   * See `fallback_metadata`.
   */
  const struct tidewire_pair_t *fallback_tags;
  /**
   * How many.
   */
  size_t fallback_tags_count;
} tidewire_enricher_t;

/**
 * Called with one batch after the other, by a thread that belongs to the handler. The batch is the host's to answer. While
 * it runs, this handler gets no other. It may call this library, and close the engine. It must not throw or end its thread.
 */
typedef void (*tidewire_handler_callback_t)(void *callback_data, struct tidewire_batch_t *batch);

/**
 * What serves destinations. Initialise with `TIDEWIRE_HANDLER_INIT`. For `struct_size` see `tidewire_options_t`.
 */
typedef struct tidewire_handler_t {
  /**
   * `sizeof(tidewire_handler_t)`.
   */
  size_t struct_size;
  /**
   * Called with each batch.
   */
  tidewire_handler_callback_t callback;
  /**
   * Handed to the callback.
   */
  void *callback_data;
  /**
   * Called once, when the callback will not be called any more, with the callback's data; may be NULL. If the handler could
   * not be set it is not called.
   */
  tidewire_release_callback_t release;
} tidewire_handler_t;

/**
 * What a batch is. Initialise with `TIDEWIRE_BATCH_INFO_INIT`. For `struct_size` see `tidewire_options_t`; a library fills
 * as much of an older program's struct as there is.
 */
typedef struct tidewire_batch_info_t {
  /**
   * `sizeof(tidewire_batch_info_t)`.
   */
  size_t struct_size;
  /**
   * The name of the destination.
   */
  struct tidewire_bytes_t destination;
  /**
   * The media type of the body.
   */
  struct tidewire_bytes_t content_type;
  /**
   * How many events it has, at least 1.
   */
  size_t events;
  /**
   * How many headers it has.
   */
  size_t headers;
  /**
   * How many pieces the body is in.
   */
  size_t pieces;
  /**
   * How many bytes the body has.
   */
  size_t body_bytes;
  /**
   * How long an answer still counts, in milliseconds; 0 if no longer.
   */
  uint64_t left_ms;
} tidewire_batch_info_t;

/**
 * One event of a batch. Initialise with `TIDEWIRE_BATCH_EVENT_INIT`. For `struct_size` see `tidewire_options_t`; a library
 * fills as much of an older program's struct as there is.
 */
typedef struct tidewire_batch_event_t {
  /**
   * `sizeof(tidewire_batch_event_t)`.
   */
  size_t struct_size;
  /**
   * Its id, NUL-terminated. If the event comes again, it has the same.
   */
  const char *id;
  /**
   * Its record, as the destination's profile and format write it.
   */
  struct tidewire_bytes_t record;
} tidewire_batch_event_t;

/**
 * Called with one message: how important it is, the part of the library that it is from, and the message, one line of UTF-8.
 * Both are NUL-terminated and may be read during the call only. It is called from any threads, also at the same time, the
 * shards among them, which wait for it: so it should be quick. It must not throw, end its thread, or call this library.
 */
typedef void (*tidewire_log_callback_t)(void *callback_data,
                                        tidewire_log_level_t level,
                                        const char *target,
                                        const char *message);

/**
 * How a notification document is read. Initialise with `TIDEWIRE_NOTIFICATION_OPTIONS_INIT`. For `struct_size` see
 * `tidewire_options_t`.
 */
typedef struct tidewire_notification_options_t {
  /**
   * `sizeof(tidewire_notification_options_t)`.
   */
  size_t struct_size;
  /**
   * XML or JSON.
   */
  tidewire_notification_format_t format;
  /**
   * What to do about rules of the document that want the same event.
   */
  tidewire_overlap_t overlap;
  /**
   * How filter values are written.
   */
  tidewire_filter_values_t filter_values;
  /**
   * What the document may say beyond S3.
   */
  tidewire_extensions_t extensions;
  /**
   * The destination that `EventBridgeConfiguration` means; if it is empty, documents that have it are refused.
   */
  struct tidewire_bytes_t event_bridge;
} tidewire_notification_options_t;

/**
 * What became of the events of a document. Initialise with `TIDEWIRE_PUBLISHED_INIT`. For `struct_size` see
 * `tidewire_options_t`; a library fills as much of an older program's struct as there is.
 */
typedef struct tidewire_published_t {
  /**
   * `sizeof(tidewire_published_t)`.
   */
  size_t struct_size;
  /**
   * Those that were accepted.
   */
  uint64_t accepted;
  /**
   * Those that no rule wants.
   */
  uint64_t no_match;
  /**
   * Those that had been accepted before.
   */
  uint64_t duplicates;
} tidewire_published_t;

/**
 * Which events are read, and from where on. Initialise with `TIDEWIRE_READ_OPTIONS_INIT`: all that come from now on. For
 * `struct_size` see `tidewire_options_t`.
 */
typedef struct tidewire_read_options_t {
  /**
   * `sizeof(tidewire_read_options_t)`.
   */
  size_t struct_size;
  /**
   * Where reading begins.
   */
  tidewire_from_t from;
  /**
   * For a group: how often an event is given out before it becomes a dead letter, 1 to 1,000,000; 0 means 16. The latest
   * call counts for the group.
   */
  uint32_t deliveries_max;
  /**
   * The clock that `TIDEWIRE_FROM_TIME` begins at, in nanoseconds since the Unix epoch.
   */
  uint64_t from_ns;
  /**
   * What `TIDEWIRE_FROM_POSITION` goes on behind, as `tidewire_tail_position` gave it.
   */
  struct tidewire_bytes_t position;
  /**
   * Only events of this bucket; empty for all.
   */
  struct tidewire_bytes_t bucket;
  /**
   * Only events of these types: names and wildcards as in rules (`s3:ObjectCreated:*`), with spaces between; empty for all.
   */
  struct tidewire_bytes_t events;
  /**
   * Only events that this filter wants; NULL for all. Read during the call only.
   */
  const struct tidewire_filter_t *filter;
  /**
   * For a group: how long this member has for an event before another may get it, in milliseconds, up to 12 hours; 0 means
   * 30000. See `tidewire_consumer_extend`.
   */
  uint64_t visibility_timeout_ms;
  /**
   * For a group: how many bytes of log are kept for it while it is behind, at least 1 MiB; 0 means 1 GiB. What it has not
   * read by then comes as a gap. The latest call counts for the group.
   */
  uint64_t lag_bytes_max;
  /**
   * For a group: how old the log gets that is kept for it while it is behind, in milliseconds, at least 1000; 0 means 7
   * days. The latest call counts for the group.
   */
  uint64_t lag_age_max_ms;
} tidewire_read_options_t;

/**
 * By what a member of a group has an event. It is for one giving-out of it. A host may keep it as numbers; they mean
 * something to the run of the engine that gave them.
 */
typedef struct tidewire_lease_t {
  /**
   * The shard.
   */
  uint64_t shard;
  /**
   * The event's sequence there.
   */
  uint64_t sequence;
  /**
   * Which giving-out it is.
   */
  uint64_t token;
} tidewire_lease_t;

/**
 * An event of the log, or a stretch of it that is missing. Initialise with `TIDEWIRE_ITEM_INIT`. For `struct_size` see
 * `tidewire_options_t`; a library fills as much of an older program's struct as there is.
 */
typedef struct tidewire_item_t {
  /**
   * `sizeof(tidewire_item_t)`.
   */
  size_t struct_size;
  /**
   * The event; NULL for a gap. It lives as long as the items.
   */
  const struct tidewire_event_t *event;
  /**
   * The event's id, NUL-terminated; empty for a gap. It lives as long as the items.
   */
  const char *id;
  /**
   * The shard of the log that it stands in.
   */
  uint32_t shard;
  /**
   * `TIDEWIRE_GAP_NONE` for an event, else why something is missing.
   */
  tidewire_gap_t gap;
  /**
   * The event's sequence in its shard; of a gap the first one that is missing.
   */
  uint64_t sequence;
  /**
   * The same; of a gap the last one that is missing. Not every one between need have been an event.
   */
  uint64_t sequence_last;
  /**
   * The engine's clock when it took the event, in nanoseconds since the Unix epoch: never lower than an earlier event's. Of
   * a gap that of the last event before it, or 0 if that is not known.
   */
  uint64_t clock_ns;
  /**
   * For a member of a group: how often the event was given out, this time included. More than 1 means that somebody may
   * have processed it before. 0 otherwise.
   */
  uint32_t deliveries;
  /**
   * 0.
   */
  uint32_t reserved;
  /**
   * For a member of a group: to acknowledge it by.
   */
  struct tidewire_lease_t lease;
} tidewire_item_t;

/**
 * What to replay, and to whom. Initialise with `TIDEWIRE_REPLAY_OPTIONS_INIT`: everything that the log still has. For
 * `struct_size` see `tidewire_options_t`.
 */
typedef struct tidewire_replay_options_t {
  /**
   * `sizeof(tidewire_replay_options_t)`.
   */
  size_t struct_size;
  /**
   * The replay's name, which its records carry as `replay`; empty for a new one.
   */
  struct tidewire_bytes_t name;
  /**
   * A destination of the rules, by name. Give this or `one_off`.
   */
  struct tidewire_bytes_t destination;
  /**
   * A destination of its own, as `tidewire_destination_put` takes it. It is not stored: after a restart the replay waits
   * until `tidewire_replay_resume` says again where it goes.
   */
  struct tidewire_bytes_t one_off;
  /**
   * Begins with the first event whose clock is at least this, in nanoseconds since the Unix epoch; 0 means the oldest.
   */
  uint64_t from_ns;
  /**
   * Events with a clock above this are not replayed; 0 means everything up to the call.
   */
  uint64_t until_ns;
  /**
   * Only events of this bucket; empty for all.
   */
  struct tidewire_bytes_t bucket;
  /**
   * Only events that this filter wants; NULL for all. Read during the call only.
   */
  const struct tidewire_filter_t *filter;
  /**
   * The most events per second; 0 for as many as there are.
   */
  uint32_t rate_max;
  /**
   * Must be 0.
   */
  uint32_t reserved;
} tidewire_replay_options_t;

/**
 * How an event is reserved. Initialise with `TIDEWIRE_RESERVE_OPTIONS_INIT`. For `struct_size` see `tidewire_options_t`.
 */
typedef struct tidewire_reserve_options_t {
  /**
   * `sizeof(tidewire_reserve_options_t)`.
   */
  size_t struct_size;
  /**
   * What of the reservation survives a crash.
   */
  tidewire_intent_t intent;
  /**
   * Must be 0.
   */
  uint32_t reserved;
  /**
   * The most bytes that the event will have encoded, at most `engine.event_bytes_max`; 0 means what the event given has
   * and 512 more.
   */
  size_t bytes_max;
  /**
   * How long to wait for space, in milliseconds; 0 means not at all.
   */
  uint64_t full_timeout_ms;
  /**
   * How long to wait for a durable intent to be synced, in milliseconds; 0 means 30000.
   */
  uint64_t ack_timeout_ms;
} tidewire_reserve_options_t;

/**
 * What is known of an event only after the operation. Initialise with `TIDEWIRE_COMMIT_INIT`; what is left empty stays as
 * it was when the event was reserved. For `struct_size` see `tidewire_options_t`.
 */
typedef struct tidewire_commit_t {
  /**
   * `sizeof(tidewire_commit_t)`.
   */
  size_t struct_size;
  /**
   * When it happened, in nanoseconds since the Unix epoch; 0 is the time given when it was reserved, or now if none was.
   */
  uint64_t time_ns;
  /**
   * The object's size in bytes, if `has_size` is not 0.
   */
  uint64_t size;
  /**
   * Not 0 if `size` is known.
   */
  uint8_t has_size;
  /**
   * Must be 0.
   */
  uint8_t reserved[7];
  /**
   * The entity tag, without quotes.
   */
  struct tidewire_bytes_t etag;
  /**
   * The object's version.
   */
  struct tidewire_bytes_t version_id;
  /**
   * The object's content type.
   */
  struct tidewire_bytes_t content_type;
  /**
   * Data of the host or of the event type's schema: a JSON document.
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
} tidewire_commit_t;

/**
 * Called with a reservation that an earlier run left without an end: its token, NUL-terminated; when it was made, in
 * nanoseconds since the Unix epoch; and the event as it was given then. All of it may be read during the call only. It may
 * call `tidewire_resolve_commit` and `tidewire_resolve_abort`.
 */
typedef void (*tidewire_in_doubt_callback_t)(void *callback_data,
                                             const char *token,
                                             uint64_t reserved_ns,
                                             const struct tidewire_event_t *event);

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
  /**
   * Events that the enricher saw, whether it added anything or not (`tidewire_enricher_set`).
   */
  uint64_t enriched;
  /**
   * Events for which it took too long; these and the next two have got the fallback.
   */
  uint64_t enrich_timeouts;
  /**
   * Events for which it failed, or added what cannot be.
   */
  uint64_t enrich_failed;
  /**
   * Events that it did not see, because it had not come back from an earlier one, or the engine closed.
   */
  uint64_t enrich_skipped;
} tidewire_stats_t;

#ifdef __cplusplus
extern "C" {
#endif // __cplusplus

/**
 * Opens a queue of completions. An engine may have several, one per event loop for instance. It keeps the engine's memory,
 * but does not keep it from closing: closing completes everything that was submitted.
 *
 * `options`: NULL for the defaults.
 * `completions_out`: set to the new queue, or to NULL if it fails.
 *
 * Fails with `TIDEWIRE_INVALID_ARGUMENT`, `_IO` if there are no descriptors or threads left, `_WRONG_PROCESS`.
 */
tidewire_result_t tidewire_completions_open(const struct tidewire_engine_t *engine,
                                            const struct tidewire_completions_options_t *options,
                                            struct tidewire_completions_t **completions_out,
                                            struct tidewire_error_t **err);

/**
 * A descriptor that is readable while there may be completions to take: for `poll`, `epoll` or a library of event loops.
 * The host must neither read nor close it; it lives as long as the queue. -1 for NULL.
 */
int tidewire_completions_fd(const struct tidewire_completions_t *completions);

/**
 * Takes completions; never waits. Those of events with one key and one ack level come in the order of the events. While
 * there are more the descriptor stays readable.
 *
 * `completions_out`: filled with up to `max` of them.
 * `count_out`: set to how many there are; 0 if the call fails.
 *
 * Fails with `TIDEWIRE_INVALID_ARGUMENT` (also if the queue has a callback) or `_WRONG_PROCESS`.
 */
tidewire_result_t tidewire_completions_take(const struct tidewire_completions_t *completions,
                                            struct tidewire_completion_t *completions_out,
                                            size_t max,
                                            size_t *count_out,
                                            struct tidewire_error_t **err);

/**
 * Frees a queue. Completions that were not taken are lost, the events are not. If it has a callback, it is told what has
 * completed by now, and is not called any more when this returns.
 *
 * `completions`: the address of the pointer to the queue, which is set to NULL. NULL, and the address of NULL, are allowed
 * and do nothing. No other call with this queue may be running or follow.
 */
void tidewire_completions_free(struct tidewire_completions_t **completions);

/**
 * Publishes an event as `tidewire_publish` does, but does not wait for `options.ack`: when that is reached, `completions`
 * tells it with `user_data`. There is one completion for each event that was
 * accepted, now or before, and none for others.
 *
 * It still waits for space, unless `options` say otherwise.
 *
 * `outcome_out`: set to what became of the event, also when the call fails; may be NULL.
 *
 * Fails with `TIDEWIRE_INVALID_EVENT`, `_INVALID_ARGUMENT`, `_FULL`, `_CLOSED`, `_WRONG_PROCESS` or `_LOG_FAILED`: the
 * event was not accepted.
 */
tidewire_result_t tidewire_submit(const struct tidewire_engine_t *engine,
                                  const struct tidewire_event_t *event,
                                  const struct tidewire_publish_options_t *options,
                                  const struct tidewire_completions_t *completions,
                                  uint64_t user_data,
                                  tidewire_outcome_t *outcome_out,
                                  struct tidewire_error_t **err);

/**
 * Writes dead letters as lines of JSON, by shard and number: what is known of each, with its event and the record as the
 * destination would have got it, as `tidewire dlq export` does. Reads files on the calling thread; the engine is not
 * disturbed.
 *
 * `filter`: NULL for all.
 * `callback`: gets the lines, in pieces of any length.
 * `count_out`: set to how many there are; may be NULL.
 *
 * Fails with `TIDEWIRE_NOT_FOUND` if the data directory never had the filter's destination; `_IO` and the like if a file
 * cannot be read, or the callback ended it; `_INVALID_ARGUMENT`, `_WRONG_PROCESS`.
 */
tidewire_result_t tidewire_dead_letters_export(const struct tidewire_engine_t *engine,
                                               const struct tidewire_dead_letter_filter_t *filter,
                                               tidewire_write_callback_t callback,
                                               void *callback_data,
                                               uint64_t *count_out,
                                               struct tidewire_error_t **err);

/**
 * Puts dead letters back into the log, to be delivered as the same events: their ids and their places in the order of their
 * keys stay. A letter is removed once its event is durable in the log. Letters that come meanwhile are not redriven, so that
 * it ends even if everything fails again.
 *
 * `filter`: NULL for all.
 * `to`: another destination than the one they were for; empty for that one.
 * `per_second`: the most events per second; 0 for as many as there are.
 * `timeout_ms`: how long to wait.
 * `redriven_out`, `left_out`: set to how many were redriven, and how many were not because their destination is not
 * configured or the like; may be NULL.
 *
 * Fails with `TIDEWIRE_TIMEOUT` if it is not through (it is stopped then; what was redriven stays so, and the outputs
 * tell), `_NOT_FOUND` if the destination is not configured, `_CLOSED`, `_INVALID_ARGUMENT`, `_WRONG_PROCESS`.
 */
tidewire_result_t tidewire_dead_letters_redrive(const struct tidewire_engine_t *engine,
                                                const struct tidewire_dead_letter_filter_t *filter,
                                                struct tidewire_bytes_t to,
                                                uint32_t per_second,
                                                uint64_t timeout_ms,
                                                uint64_t *redriven_out,
                                                uint64_t *left_out,
                                                struct tidewire_error_t **err);

/**
 * Removes dead letters for good.
 *
 * `filter`: NULL for all.
 * `timeout_ms`: how long to wait.
 * `purged_out`: set to how many there were, once that is durable; may be NULL.
 *
 * Fails with `TIDEWIRE_TIMEOUT` if it is not through (it goes on), `_NOT_FOUND` if the data directory never had the filter's
 * destination, `_IO` and the like, `_CLOSED`, `_INVALID_ARGUMENT`, `_WRONG_PROCESS`.
 */
tidewire_result_t tidewire_dead_letters_purge(const struct tidewire_engine_t *engine,
                                              const struct tidewire_dead_letter_filter_t *filter,
                                              uint64_t timeout_ms,
                                              uint64_t *purged_out,
                                              struct tidewire_error_t **err);

/**
 * Puts one destination, new or in the place of the one of its name. It is kept in the data directory with the secrets that
 * are given as text, in files that only their owner can read, unless the configuration says `engine.rules = "host"`.
 *
 * `destination`: one `[[destination]]` as the configuration has it, or its table as a JSON object:
 * `{"name": "d", "type": "webhook", "url": "https://example.com/hook"}`. Paths in it are relative to the current directory.
 * `expect`: the version that it must have now, `TIDEWIRE_EXPECT_ANYTHING` or `TIDEWIRE_EXPECT_ABSENT`.
 * `waiting`: what becomes of what waits for it, if its settings are others now.
 * `move_to`: the destination to move that to, with `TIDEWIRE_BACKLOG_MOVE`; empty otherwise.
 * `version_out`: set to its new version; may be NULL.
 *
 * Fails with `TIDEWIRE_INVALID_CONFIG` if it is wrong, or a rule does not fit it; `_CONFLICT` if `expect` does not hold, or
 * the configuration has one of its name; `_NOT_FOUND` if there is nothing to move to; `_IO` and the like if it cannot be
 * stored; `_CLOSED`, `_WRONG_PROCESS`, `_INVALID_ARGUMENT`. Then nothing has changed.
 */
tidewire_result_t tidewire_destination_put(const struct tidewire_engine_t *engine,
                                           struct tidewire_bytes_t destination,
                                           uint64_t expect,
                                           tidewire_backlog_t waiting,
                                           struct tidewire_bytes_t move_to,
                                           uint64_t *version_out,
                                           struct tidewire_error_t **err);

/**
 * Deletes a destination that was put.
 *
 * `waiting`, `move_to`: what becomes of what waits for it; that may take longer than this run.
 *
 * Fails with `TIDEWIRE_NOT_FOUND` if there is none that was put; `_CONFLICT` if `expect` does not hold, or rules that were
 * put send to it; otherwise as `tidewire_destination_put`.
 */
tidewire_result_t tidewire_destination_delete(const struct tidewire_engine_t *engine,
                                              struct tidewire_bytes_t destination,
                                              uint64_t expect,
                                              tidewire_backlog_t waiting,
                                              struct tidewire_bytes_t move_to,
                                              struct tidewire_error_t **err);

/**
 * Sends a destination nothing until it is resumed; its events wait. It stays so through restarts, from a second after this
 * at the latest.
 *
 * Fails with `TIDEWIRE_NOT_FOUND`, `_INVALID_ARGUMENT` or `_WRONG_PROCESS`.
 */
tidewire_result_t tidewire_destination_suspend(const struct tidewire_engine_t *engine,
                                               struct tidewire_bytes_t destination,
                                               struct tidewire_error_t **err);

/**
 * Sends to a destination again, at once, whatever was in the way: it was suspended or disabled, or is left alone because it
 * failed.
 *
 * Fails as `tidewire_destination_suspend`.
 */
tidewire_result_t tidewire_destination_resume(const struct tidewire_engine_t *engine,
                                              struct tidewire_bytes_t destination,
                                              struct tidewire_error_t **err);

/**
 * Vouches for a destination that is pending: its endpoints count as having agreed to be sent events. Of one that is not
 * pending nothing changes.
 *
 * `per_minute`: to so many requests per minute; 0 for as many as there are.
 *
 * Fails as `tidewire_destination_suspend`.
 */
tidewire_result_t tidewire_destination_confirm(const struct tidewire_engine_t *engine,
                                               struct tidewire_bytes_t destination,
                                               uint32_t per_minute,
                                               struct tidewire_error_t **err);

/**
 * Whether a destination gets anything, why not, its endpoints, its certificates, and its last attempts that failed, as a
 * JSON object: what `tidewire destination show --json` prints. Later versions may add members.
 *
 * `json_out`: set to NUL-terminated UTF-8, or to NULL if the call fails. Free it with `tidewire_string_free`.
 * `len_out`: set to its length in bytes without the NUL; may be NULL.
 *
 * Fails as `tidewire_destination_suspend`.
 */
tidewire_result_t tidewire_destination_json(const struct tidewire_engine_t *engine,
                                            struct tidewire_bytes_t destination,
                                            char **json_out,
                                            size_t *len_out,
                                            struct tidewire_error_t **err);

/**
 * All destinations, also those that are not in force, as a JSON list of objects with `name`, `version`, `owner`
 * (`configuration` or `callers`) and `inactive` (why it is not in force, or null). Settings are not told, for they may be
 * secret. Later versions may add members.
 */
tidewire_result_t tidewire_destinations_json(const struct tidewire_engine_t *engine,
                                             char **json_out,
                                             size_t *len_out,
                                             struct tidewire_error_t **err);

/**
 * Sends a destination one event of its own (`s3:TestEvent`), apart from everything else that is on its way, and tells step
 * by step what happened. Blocks for as long as the destination's `timeout` at most.
 *
 * `json_out`: set to a JSON object with `ok`, `failure` (why it did not take the event, or null) and `steps`, a list of
 * objects with `what` and `took_us`. NULL if nothing could be tried. Free it with `tidewire_string_free`.
 * `len_out`: set to its length in bytes without the NUL; may be NULL.
 *
 * Fails with `TIDEWIRE_NOT_FOUND`, `_INVALID_CONFIG` or `_IO` if a file of its settings cannot be used,
 * `_INVALID_ARGUMENT` or `_WRONG_PROCESS`. That it does not take the event is no failure of the call.
 */
tidewire_result_t tidewire_destination_test(const struct tidewire_engine_t *engine,
                                            struct tidewire_bytes_t destination,
                                            char **json_out,
                                            size_t *len_out,
                                            struct tidewire_error_t **err);

/**
 * Rotates a secret of a destination. What was used before stays valid for a while; receivers find signatures of both where
 * the scheme can send several. The new secret is kept in the data directory, and takes the place of the configured one until
 * the configuration has another. Blocks on files.
 *
 * `secret`: the new one; empty to have one made.
 * `overlap_ms`: for how long the old one stays valid, in milliseconds, at most 7 days; 0 for the usual 24 hours.
 * `secret_out`: set to the new secret, NUL-terminated, or to NULL if the call fails; it is never shown again. Free it with
 * `tidewire_string_free`.
 * `len_out`: set to its length in bytes without the NUL; may be NULL.
 *
 * Fails with `TIDEWIRE_NOT_FOUND`, `_INVALID_ARGUMENT` if the destination has no secret or the new one does not fit, `_IO`
 * and the like if it cannot be stored, `_WRONG_PROCESS`.
 */
tidewire_result_t tidewire_destination_rotate_secret(const struct tidewire_engine_t *engine,
                                                     struct tidewire_bytes_t destination,
                                                     struct tidewire_bytes_t secret,
                                                     uint64_t overlap_ms,
                                                     char **secret_out,
                                                     size_t *len_out,
                                                     struct tidewire_error_t **err);

/**
 * Opens an engine, or connects to that of another process.
 *
 * Several processes over one engine: events of one bucket and key are delivered in the order of the calls, whatever
 * processes made them. What is accepted at `TIDEWIRE_ACK_MEMORY` is taken in although the process that published it dies.
 * A reservation ends with its process; one with a durable intent is in doubt from then on (`tidewire_in_doubt`). When the
 * engine's process dies, the others connect again by themselves, and what it had not taken is given to the next one;
 * meanwhile calls wait as long as they may, and then fail with `TIDEWIRE_DISCONNECTED`. With that they also fail if they
 * were waiting: then nobody knows whether the event was accepted. Handlers (`tidewire_handler_set`) belong to the process
 * that has the engine.
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
 * `_NO_SPACE`, `_NEWER_FORMAT`, `_CORRUPT` or `_IO`; with an address also with `_DISCONNECTED`, and with `_FULL` if too many
 * processes are connected.
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
 * Closes an engine and frees it. That of another process goes on: closing waits until it has taken in what this process has
 * published, and ends the connection. One of this process takes no more events, writes and syncs what was accepted, delivers
 * until the timeout, and leaves the rest in the data directory for the next opening. When it returns, no file or socket of the engine is
 * left and its shards have ended; a helper thread of each may take a moment more.
 *
 * `engine`: the address of the pointer to the engine, which is set to NULL before anything else, whatever the result
 * is. NULL, and the address of NULL, are allowed and do nothing, so that closing twice does no harm. No other call
 * with this engine may be running or follow, and it must not be called from a signal handler.
 * `timeout_ms`: how long to deliver; 0 only makes durable what was accepted; `TIDEWIRE_TIMEOUT_CONFIGURED` takes the
 * time of the configuration.
 *
 * Fails with `TIDEWIRE_TIMEOUT` if another process has not taken in everything, `TIDEWIRE_INTERNAL` if a shard ended badly, `_WRONG_PROCESS` in a forked child (where it frees the
 * child's copy, and the engine of the parent goes on), or `_PANIC`. Events that are not delivered in time are no
 * failure.
 */
tidewire_result_t tidewire_close(struct tidewire_engine_t **engine,
                                 uint64_t timeout_ms,
                                 struct tidewire_error_t **err);

/**
 * Sets what adds metadata, tags or data to each event before it is matched, in the place of an earlier one. What is published
 * after this call goes to the new one, and so does what was not taken in by then. A call of the earlier one may still be under
 * way when this returns.
 *
 * It sees the events that are published here and by other processes, those of reservations at their commit. What it adds is
 * written to the log with the event and never asked for again: not by retries, replays or the next opening. The order of
 * events stays as it is: what comes after an event waits for it, and so does an ack; publishing does not, until the ring is
 * full. After an event for which it took too long nobody waits for it until it has come back; events get the fallback
 * meanwhile. `tidewire_stats` counts. Whether an event is of interest at all is decided before, by its bucket and type.
 *
 * `enricher`: NULL to take the one there is away.
 *
 * Fails with `TIDEWIRE_INVALID_ARGUMENT`, also if the engine is another process's, `_CLOSED`, `_WRONG_PROCESS` or, if there are
 * no threads left, `_IO`.
 */
tidewire_result_t tidewire_enricher_set(const struct tidewire_engine_t *engine,
                                        const struct tidewire_enricher_t *enricher,
                                        struct tidewire_error_t **err);

/**
 * Adds an entry to the user metadata of the event, in the place of one of the same name.
 *
 * Fails with `TIDEWIRE_INVALID_ARGUMENT`, also if it is not UTF-8 or longer than an event may be; then nothing was added. What
 * makes the event as a whole too large shows when the callback returns: then it counts as failed.
 */
tidewire_result_t tidewire_enrich_set_metadata(struct tidewire_enrichment_t *enrichment,
                                               struct tidewire_bytes_t name,
                                               struct tidewire_bytes_t value,
                                               struct tidewire_error_t **err);

/**
 * Adds a tag to the event, in the place of one of the same name.
 *
 * Fails as `tidewire_enrich_set_metadata`.
 */
tidewire_result_t tidewire_enrich_set_tag(struct tidewire_enrichment_t *enrichment,
                                          struct tidewire_bytes_t name,
                                          struct tidewire_bytes_t value,
                                          struct tidewire_error_t **err);

/**
 * Sets the data of the event, a JSON document, in the place of what it has.
 *
 * Fails with `TIDEWIRE_INVALID_ARGUMENT`. What is no JSON shows when the callback returns: then it counts as failed.
 */
tidewire_result_t tidewire_enrich_set_data(struct tidewire_enrichment_t *enrichment,
                                           struct tidewire_bytes_t data,
                                           struct tidewire_error_t **err);

/**
 * Says that nothing could be found out: the event gets the fallback, and what was set does not count.
 *
 * `reason`: why, for the log; may be empty.
 *
 * Fails with `TIDEWIRE_INVALID_ARGUMENT`; if `reason` is not UTF-8 the event gets the fallback all the same.
 */
tidewire_result_t tidewire_enrich_fail(struct tidewire_enrichment_t *enrichment,
                                       struct tidewire_bytes_t reason,
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
 * Where in what was given it went wrong, such as `destination "x": url`; empty if there is no such place, and for NULL. A
 * part of the message by itself; it lives as long as the error.
 */
const char *tidewire_error_place(const struct tidewire_error_t *error);

/**
 * What to do about it; empty if that is not known, and for NULL. A part of the message by itself; it lives as long as the
 * error.
 */
const char *tidewire_error_remedy(const struct tidewire_error_t *error);

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
 * Sets what serves the destinations with `type = "custom"` whose `handler`, or else whose name, is `handler_name`. It takes
 * the place of an earlier one, which gets no more batches; a call of that one may still be under way when this returns, and
 * its batches may still be answered. Events wait for a handler that is not there yet.
 *
 * A handler has a thread of its own, so one that blocks holds up its own destinations and nothing else. It may keep batches:
 * as many may be unanswered as the destinations' `concurrency` allows. Closing the engine ends the handlers, and waits for a
 * call under way until its timeout.
 *
 * `handler`: NULL to take the one there is away.
 *
 * Fails with `TIDEWIRE_INVALID_ARGUMENT`, `_CLOSED`, `_WRONG_PROCESS` or, if there are no threads left, `_IO`.
 */
tidewire_result_t tidewire_handler_set(const struct tidewire_engine_t *engine,
                                       struct tidewire_bytes_t handler_name,
                                       const struct tidewire_handler_t *handler,
                                       struct tidewire_error_t **err);

/**
 * Tells what a batch is.
 *
 * Fails with `TIDEWIRE_INVALID_ARGUMENT`.
 */
tidewire_result_t tidewire_batch_info(const struct tidewire_batch_t *batch,
                                      struct tidewire_batch_info_t *info_out,
                                      struct tidewire_error_t **err);

/**
 * Gives one event of a batch.
 *
 * `event`: which one, from 0 on.
 *
 * Fails with `TIDEWIRE_INVALID_ARGUMENT`, also if there is no such event.
 */
tidewire_result_t tidewire_batch_event(const struct tidewire_batch_t *batch,
                                       size_t event,
                                       struct tidewire_batch_event_t *event_out,
                                       struct tidewire_error_t **err);

/**
 * Gives one header of a batch. There are some where the destination's format puts parts of an event beside its record, as
 * CloudEvents in binary mode.
 *
 * `header`: which one, from 0 on.
 *
 * Fails with `TIDEWIRE_INVALID_ARGUMENT`, also if there is no such header.
 */
tidewire_result_t tidewire_batch_header(const struct tidewire_batch_t *batch,
                                        size_t header,
                                        struct tidewire_pair_t *header_out,
                                        struct tidewire_error_t **err);

/**
 * Gives the body that a webhook would get, as pieces that make it one after the other. Nothing is copied; a
 * `tidewire_bytes_t` is laid out as a `struct iovec`.
 *
 * `pieces_out`: filled with the first pieces, up to `max` of them.
 * `count_out`: set to how many there are; 0 if the call fails. There are `pieces` of `tidewire_batch_info` in all.
 *
 * Fails with `TIDEWIRE_INVALID_ARGUMENT`.
 */
tidewire_result_t tidewire_batch_body(const struct tidewire_batch_t *batch,
                                      struct tidewire_bytes_t *pieces_out,
                                      size_t max,
                                      size_t *count_out,
                                      struct tidewire_error_t **err);

/**
 * Answers that everything was taken, and is the host's to keep. Frees the batch.
 *
 * `batch`: the address of the pointer to the batch, which is set to NULL. NULL, and the address of NULL, are allowed and do
 * nothing, so that answering twice does no harm.
 */
void tidewire_batch_accept(struct tidewire_batch_t **batch);

/**
 * Answers that everything was taken but for some events, which are tried again. Frees the batch.
 *
 * `batch`: as for `tidewire_batch_accept`; if the call fails it stays as it is, to be answered.
 * `failed`: which events were not taken, from 0 on, in any order.
 * `failed_count`: how many those are; 0 accepts everything.
 * `reason`: why, for statistics and logs; may be empty.
 *
 * Fails with `TIDEWIRE_INVALID_ARGUMENT`, also if there is no such event.
 */
tidewire_result_t tidewire_batch_accept_but(struct tidewire_batch_t **batch,
                                            const size_t *failed,
                                            size_t failed_count,
                                            struct tidewire_bytes_t reason,
                                            struct tidewire_error_t **err);

/**
 * Answers that the events could not be taken now: they are tried again with the waits of the destination's `retry`, and it
 * counts as a failure for its breaker. Frees the batch.
 *
 * `batch`, `reason`: as for `tidewire_batch_accept_but`.
 *
 * Fails with `TIDEWIRE_INVALID_ARGUMENT`.
 */
tidewire_result_t tidewire_batch_retry(struct tidewire_batch_t **batch,
                                       struct tidewire_bytes_t reason,
                                       struct tidewire_error_t **err);

/**
 * Answers that nothing more is to come for a while; then the events are tried again. It does not count as an attempt. Frees
 * the batch.
 *
 * `batch`, `reason`: as for `tidewire_batch_accept_but`.
 * `wait_ms`: for how long, in milliseconds; at most what the destination's `retry` allows.
 *
 * Fails with `TIDEWIRE_INVALID_ARGUMENT`.
 */
tidewire_result_t tidewire_batch_retry_after(struct tidewire_batch_t **batch,
                                             uint64_t wait_ms,
                                             struct tidewire_bytes_t reason,
                                             struct tidewire_error_t **err);

/**
 * Answers that something in the batch will never be taken. It is tried again in parts, until what is refused alone is a dead
 * letter after the destination's `retry.poison_attempts`. Frees the batch.
 *
 * `batch`, `reason`: as for `tidewire_batch_accept_but`.
 *
 * Fails with `TIDEWIRE_INVALID_ARGUMENT`.
 */
tidewire_result_t tidewire_batch_refuse(struct tidewire_batch_t **batch,
                                        struct tidewire_bytes_t reason,
                                        struct tidewire_error_t **err);

/**
 * Lets go of a batch without an answer, and frees it: its events are tried again.
 *
 * `batch`: as for `tidewire_batch_accept`.
 */
void tidewire_batch_free(struct tidewire_batch_t **batch);

/**
 * Has the messages of the library told to a function. It is one for all engines of the process, also those that are open
 * already; it takes the place of an earlier one, which is not called any more when this returns. Without it the library says
 * nothing: what concerns one call is in its error, and what is wrong with an engine in `tidewire_stats_json`.
 *
 * `callback`: NULL to hear nothing more.
 * `level`: messages less important than this are left out. Those of libraries inside this one are told from
 * `TIDEWIRE_LOG_WARN` on.
 *
 * Fails with `TIDEWIRE_INVALID_ARGUMENT` for an unknown level, `_CONFLICT` if the library is part of a program that has its
 * messages already.
 */
tidewire_result_t tidewire_log_to(tidewire_log_callback_t callback,
                                  void *callback_data,
                                  tidewire_log_level_t level,
                                  struct tidewire_error_t **err);

/**
 * Puts the notification document of a bucket, as `PutBucketNotificationConfiguration` of S3 does: all rules that were put
 * for the bucket are replaced by those that it has. An empty one (`<NotificationConfiguration/>`) switches the bucket's
 * notifications off, but for rules of the configuration and of every bucket.
 *
 * `document`: XML as the API of S3 takes it, or JSON as the AWS tools write it. Its ARNs name destinations:
 * `arn:tidewire:sqs:::NAME`, `arn:minio:sqs::NAME:webhook`, or those of `[arns]` in the configuration.
 * `options`: NULL for the defaults.
 * `expect`: the version that the bucket's rules must have now, `TIDEWIRE_EXPECT_ANYTHING` or `TIDEWIRE_EXPECT_ABSENT`.
 * `version_out`: set to the new version of the bucket's rules; may be NULL.
 *
 * Fails with `TIDEWIRE_INVALID_CONFIG` if the document is wrong, and tells line and column; otherwise as
 * `tidewire_rule_put`. Then nothing has changed. `tidewire_error_s3_code` and `tidewire_error_s3_xml` tell what to answer
 * the client.
 */
tidewire_result_t tidewire_bucket_notification_put(const struct tidewire_engine_t *engine,
                                                   struct tidewire_bytes_t bucket,
                                                   struct tidewire_bytes_t document,
                                                   const struct tidewire_notification_options_t *options,
                                                   uint64_t expect,
                                                   uint64_t *version_out,
                                                   struct tidewire_error_t **err);

/**
 * Checks a document as `tidewire_bucket_notification_put` does, and changes nothing.
 */
tidewire_result_t tidewire_bucket_notification_check(const struct tidewire_engine_t *engine,
                                                     struct tidewire_bytes_t bucket,
                                                     struct tidewire_bytes_t document,
                                                     const struct tidewire_notification_options_t *options,
                                                     struct tidewire_error_t **err);

/**
 * The notification document of a bucket, as `GetBucketNotificationConfiguration` of S3 gives it: what was put, with ids for
 * configurations that had none; one without configurations if nothing was put. Rules that were put by other ways stand in
 * it where a document can say what they say.
 *
 * `format`: `TIDEWIRE_NOTIFICATION_AUTO` is XML here.
 * `text_out`: set to the document, NUL-terminated UTF-8; NULL if the call fails. Free it with `tidewire_string_free`.
 * `len_out`: set to its length in bytes without the NUL; may be NULL.
 * `version_out`: set to the version of the bucket's rules, 0 if it never had any; may be NULL.
 * `left_out`: set to how many rules of the bucket no document can say; may be NULL.
 *
 * Fails with `TIDEWIRE_INVALID_ARGUMENT` or `_WRONG_PROCESS`.
 */
tidewire_result_t tidewire_bucket_notification_get(const struct tidewire_engine_t *engine,
                                                   struct tidewire_bytes_t bucket,
                                                   tidewire_notification_format_t format,
                                                   char **text_out,
                                                   size_t *len_out,
                                                   uint64_t *version_out,
                                                   size_t *left_out,
                                                   struct tidewire_error_t **err);

/**
 * What S3 calls an error in the document that its clients get: `MalformedXML`, `InvalidArgument` and the like; empty for
 * NULL. NUL-terminated; it is never freed. `tidewire_error_s3_status` tells the HTTP status that goes with it.
 */
const char *tidewire_error_s3_code(const struct tidewire_error_t *error);

/**
 * The HTTP status that S3 answers to an error: 400, 404, 409, 500 or 503; 200 for NULL.
 */
uint32_t tidewire_error_s3_status(const struct tidewire_error_t *error);

/**
 * The error document that S3 answers. Of what failed in the server itself it tells the client nothing.
 *
 * `error`: what another call has made.
 * `resource`: what the request was about, such as `/bucket`.
 * `request_id`: the server's id of the request.
 * `xml_out`: set to NUL-terminated UTF-8; NULL if the call fails. Free it with `tidewire_string_free`.
 * `len_out`: set to its length in bytes without the NUL; may be NULL.
 *
 * Fails with `TIDEWIRE_INVALID_ARGUMENT`.
 */
tidewire_result_t tidewire_error_s3_xml(const struct tidewire_error_t *error,
                                        struct tidewire_bytes_t resource,
                                        struct tidewire_bytes_t request_id,
                                        char **xml_out,
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
 * Publishes several events, one after the other, and waits once for the ack level of all of them.
 *
 * `events`: `count` of them, all with the same `struct_size`; read during the call only.
 * `options`: NULL for the defaults. They are for all events; so `dedup_key` tells only events of different keys apart.
 * `outcomes_out`: `count` of them, set to what became of each event, also when the call fails; may be NULL.
 *
 * Fails as `tidewire_publish`, with the error of the first event that is refused: those before it are accepted, and the
 * call has waited for them; it and those after it are not (`TIDEWIRE_OUTCOME_REFUSED`).
 */
tidewire_result_t tidewire_publish_batch(const struct tidewire_engine_t *engine,
                                         const struct tidewire_event_t *events,
                                         size_t count,
                                         const struct tidewire_publish_options_t *options,
                                         tidewire_outcome_t *outcomes_out,
                                         struct tidewire_error_t **err);

/**
 * Publishes an event that stands at `cursor` in a log of the host. Replaying that log is harmless: what the engine has
 * already is answered with `TIDEWIRE_OUTCOME_DUPLICATE`, and `tidewire_last_applied` says where to begin.
 *
 * `cursor`: from 1, growing from call to call. One that is not above an earlier call's is taken for a repeat. Calls of
 * several threads are made one after the other; it is for the host to keep them in the order of its log. An event that
 * was refused must be given again before the next one.
 *
 * Otherwise as `tidewire_publish`; but after `TIDEWIRE_LOG_FAILED` the outcome does not tell whether the event is in the
 * log: give it again to the next opening.
 */
tidewire_result_t tidewire_append_at(const struct tidewire_engine_t *engine,
                                     uint64_t cursor,
                                     const struct tidewire_event_t *event,
                                     const struct tidewire_publish_options_t *options,
                                     tidewire_outcome_t *outcome_out,
                                     struct tidewire_error_t **err);

/**
 * Publishes the events of a JSON document, in its order, and waits once for the ack level of all of them: `Records` as S3 and
 * its peers send them, CloudEvents (one or a batch), or a line per event, with names as of the fields of `tidewire_event_t`:
 * `{"type": "s3:ObjectCreated:Put", "bucket": "b", "key": "k", "size": 1024}`.
 *
 * `json`: at most 4 MiB, as lines at most 16 MiB; with at most 65536 events.
 * `content_type`: says what it is, such as `application/cloudevents+json`; if it does not say enough, or is empty, the document
 * does.
 * `options`: NULL for the defaults. They are for all events; so `dedup_key` tells only events of different keys apart.
 * `published_out`: set to what became of the events, also when the call fails; may be NULL.
 *
 * Fails with `TIDEWIRE_INVALID_EVENT`, with the place, if anything of the document is wrong: then nothing of it is published.
 * Otherwise as `tidewire_publish_batch`.
 */
tidewire_result_t tidewire_publish_json(const struct tidewire_engine_t *engine,
                                        struct tidewire_bytes_t json,
                                        struct tidewire_bytes_t content_type,
                                        const struct tidewire_publish_options_t *options,
                                        struct tidewire_published_t *published_out,
                                        struct tidewire_error_t **err);

/**
 * Up to which cursor everything that `tidewire_append_at` was called with is durable, 0 if nothing is: the host need not
 * keep its log up to there, and replays it from there. It never falls. It follows what is durable with a delay of about
 * `engine.delivery.cursor_interval`, and is exact after a clean close.
 *
 * `cursor_out`: set to it.
 *
 * Fails with `TIDEWIRE_INVALID_ARGUMENT` or `_WRONG_PROCESS`.
 */
tidewire_result_t tidewire_last_applied(const struct tidewire_engine_t *engine,
                                        uint64_t *cursor_out,
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
 * Which details of an event the host should fetch: the sum of the `TIDEWIRE_DETAILS_` that are of use. For hosts that fetch
 * them by themselves, and for commits; `fetch` of the event asks the same.
 *
 * `event`: only its bucket, type and key are looked at.
 *
 * They are of use if a rule that may want the event looks at them or keeps the event, or a destination that it would go to has
 * them in its records. All are, if anything is wrong with the arguments.
 */
tidewire_details_wanted_t tidewire_details_wanted(const struct tidewire_engine_t *engine,
                                                  const struct tidewire_event_t *event);

/**
 * Follows the log. Only events that a rule wants, or that are kept (`engine.retention`), are in it.
 *
 * `options`: NULL for the defaults. What is said to be for a group is of no account.
 * `tail_out`: set to the tail, or to NULL if it fails.
 *
 * Fails with `TIDEWIRE_INVALID_ARGUMENT` (also for a position of another data directory), `_INVALID_CONFIG` for a filter, a
 * bucket or types that are wrong, `_CLOSED`, `_WRONG_PROCESS`.
 */
tidewire_result_t tidewire_tail_open(const struct tidewire_engine_t *engine,
                                     const struct tidewire_read_options_t *options,
                                     struct tidewire_tail_t **tail_out,
                                     struct tidewire_error_t **err);

/**
 * What comes next: waits for the first one, and takes what is there then.
 *
 * `max`: the most items.
 * `timeout_ms`: how long to wait for the first one.
 * `items_out`: set to what was read, which is none if there was nothing in time; to NULL if the call fails. Free it with
 * `tidewire_items_free`.
 *
 * Fails with `TIDEWIRE_CLOSED` when the engine is closed and everything was read; `_IO` and the like if the log cannot be
 * read; `_INVALID_ARGUMENT`, `_WRONG_PROCESS`. The items before that were given.
 */
tidewire_result_t tidewire_tail_next(const struct tidewire_tail_t *tail,
                                     size_t max,
                                     uint64_t timeout_ms,
                                     struct tidewire_items_t **items_out,
                                     struct tidewire_error_t **err);

/**
 * How far a tail has come, for `TIDEWIRE_FROM_POSITION`, also of another run.
 *
 * `position_out`: set to a NUL-terminated text, or to NULL if the call fails. Free it with `tidewire_string_free`.
 * `len_out`: set to its length in bytes without the NUL; may be NULL.
 *
 * Fails with `TIDEWIRE_INVALID_ARGUMENT`.
 */
tidewire_result_t tidewire_tail_position(const struct tidewire_tail_t *tail,
                                         char **position_out,
                                         size_t *len_out,
                                         struct tidewire_error_t **err);

/**
 * Frees a tail.
 *
 * `tail`: the address of the pointer, which is set to NULL. NULL, and the address of NULL, are allowed and do nothing. No
 * other call with it may be running or follow.
 */
void tidewire_tail_free(struct tidewire_tail_t **tail);

/**
 * How many items there are; 0 for NULL.
 */
size_t tidewire_items_count(const struct tidewire_items_t *items);

/**
 * One of the items.
 *
 * `n`: which one, from 0.
 * `item_out`: initialised with `TIDEWIRE_ITEM_INIT`; filled in, or left unchanged if the call fails.
 *
 * Fails with `TIDEWIRE_INVALID_ARGUMENT`.
 */
tidewire_result_t tidewire_items_get(const struct tidewire_items_t *items,
                                     size_t n,
                                     struct tidewire_item_t *item_out,
                                     struct tidewire_error_t **err);

/**
 * Frees items, and the events that they point to. Events that a member of a group has stay with it.
 *
 * `items`: the address of the pointer, which is set to NULL. NULL, and the address of NULL, are allowed and do nothing.
 */
void tidewire_items_free(struct tidewire_items_t **items);

/**
 * A member of a group of consumers, which is made if it is not there.
 *
 * Members of a group share its events: each goes to one of them, on a lease. Of one key there is one event out at a time, so
 * that the events of a key are processed in order, whoever does it. An event that is not acknowledged in time goes out again.
 * What a group has done is saved about every `engine.delivery.cursor_interval`: after a crash, what was acknowledged since
 * then goes out again. The events that a group wants are kept in the log for it, whether or not a rule wants them. A group
 * exists until `tidewire_group_delete`, with or without members.
 *
 * `group`: its name.
 * `options`: NULL for the defaults. Which events it wants is fixed when the group is made, and where it begins is of no
 * account for one that exists.
 * `consumer_out`: set to the member, or to NULL if it fails.
 *
 * Fails with `TIDEWIRE_INVALID_ARGUMENT` for a name that is not allowed, another filter than the group's or a position of
 * another directory; `_INVALID_CONFIG` for options out of range; `_FULL` if there are too many groups; `_IO` and the like if
 * it cannot be stored; `_CLOSED`, `_WRONG_PROCESS`.
 */
tidewire_result_t tidewire_consumer_open(const struct tidewire_engine_t *engine,
                                         struct tidewire_bytes_t group,
                                         const struct tidewire_read_options_t *options,
                                         struct tidewire_consumer_t **consumer_out,
                                         struct tidewire_error_t **err);

/**
 * Takes events that no member has, and waits if there are none. Fewer than `max` are no sign that there are no more. A gap
 * tells of events that the group should have had and will not get, because it was too far behind or they were damaged: it
 * comes once, to one member, and needs no acknowledgement.
 *
 * `max`: the most items; at most 10000 come at a time.
 * `timeout_ms`: how long to wait if there are none.
 * `items_out`: set to what was taken, which may be none; to NULL if the call fails. Free it with `tidewire_items_free`.
 *
 * Fails with `TIDEWIRE_NOT_FOUND` if the group was deleted; `_IO` and the like if the log cannot be read; `_CLOSED`,
 * `_INVALID_ARGUMENT`, `_WRONG_PROCESS`.
 */
tidewire_result_t tidewire_consumer_fetch(const struct tidewire_consumer_t *consumer,
                                          size_t max,
                                          uint64_t timeout_ms,
                                          struct tidewire_items_t **items_out,
                                          struct tidewire_error_t **err);

/**
 * Events are processed. Those whose leases are good are done, whatever becomes of the others.
 *
 * `leases`: `count` of them, as the items have them.
 *
 * Fails with `TIDEWIRE_TIMEOUT` if a lease had run out: the event was, or will be, given to another member, and what was done
 * for it here may be done twice. `_NOT_FOUND` if an event is done already, or the group was deleted. `_CLOSED`,
 * `_WRONG_PROCESS`, `_INVALID_ARGUMENT`: nothing is done.
 */
tidewire_result_t tidewire_consumer_ack(const struct tidewire_consumer_t *consumer,
                                        const struct tidewire_lease_t *leases,
                                        size_t count,
                                        struct tidewire_error_t **err);

/**
 * An event could not be processed: it goes out again.
 *
 * `delay_ms`: how long it waits before.
 *
 * Fails as `tidewire_consumer_ack`.
 */
tidewire_result_t tidewire_consumer_nack(const struct tidewire_consumer_t *consumer,
                                         const struct tidewire_lease_t *lease,
                                         uint64_t delay_ms,
                                         struct tidewire_error_t **err);

/**
 * An event takes longer: the lease begins anew, with the member's whole `visibility_timeout_ms`.
 *
 * Fails as `tidewire_consumer_ack`.
 */
tidewire_result_t tidewire_consumer_extend(const struct tidewire_consumer_t *consumer,
                                           const struct tidewire_lease_t *lease,
                                           struct tidewire_error_t **err);

/**
 * Frees a member: what it has not acknowledged goes out again at once.
 *
 * `consumer`: the address of the pointer, which is set to NULL. NULL, and the address of NULL, are allowed and do nothing. No
 * other call with it may be running or follow.
 */
void tidewire_consumer_free(struct tidewire_consumer_t **consumer);

/**
 * Deletes a group of consumers: what it has done is forgotten, and the log is not kept for it any more. Calls of its members
 * fail with `TIDEWIRE_NOT_FOUND` from then on.
 *
 * Fails with `TIDEWIRE_NOT_FOUND` if there is no such group; `_IO` and the like if that cannot be stored; `_CLOSED`,
 * `_INVALID_ARGUMENT`, `_WRONG_PROCESS`.
 */
tidewire_result_t tidewire_group_delete(const struct tidewire_engine_t *engine,
                                        struct tidewire_bytes_t group,
                                        struct tidewire_error_t **err);

/**
 * The groups of consumers, as a JSON list of objects with `name`, `given`, `repeated`, `expired`, `acknowledged`,
 * `dead_lettered`, `missed`, `out` and `lag`: events given out, of those repeats, leases that ran out, events acknowledged and
 * given up, sequences that never came, events that members have now, and sequences of the log behind the oldest event that is
 * not done. Counts are of this run of the engine. Later versions may add members.
 */
tidewire_result_t tidewire_groups_json(const struct tidewire_engine_t *engine,
                                       char **json_out,
                                       size_t *len_out,
                                       struct tidewire_error_t **err);

/**
 * Checks a request that is signed as Standard Webhooks says.
 *
 * `secrets`: `whsec_…` or a public key `whpk_…`; several with spaces between them while one takes the place of another.
 * `id`, `timestamp`, `signature`: the values of the headers `webhook-id`, `webhook-timestamp` and `webhook-signature`.
 * `body`: as it was sent.
 * `tolerance_s`: how far its time may be from now, in seconds; 0 is 300.
 * `err`: see `tidewire_error_t`; may be NULL.
 *
 * Fails with `TIDEWIRE_INVALID_ARGUMENT` if no signature fits or the time is too far from now (answer 401), and for secrets that
 * are none.
 */
tidewire_result_t tidewire_receive_verify(struct tidewire_bytes_t secrets,
                                          struct tidewire_bytes_t id,
                                          struct tidewire_bytes_t timestamp,
                                          struct tidewire_bytes_t signature,
                                          struct tidewire_bytes_t body,
                                          uint32_t tolerance_s,
                                          struct tidewire_error_t **err);

/**
 * Reads the events of a body, in their order: `Records` of the profiles `aws`, `minio` and `ceph`, CloudEvents in JSON, one or
 * many, or lines of these.
 *
 * `body`: at most 64 MiB.
 * `json_out`: set to a JSON list of objects with `id`, `event_type`, `bucket`, `key` (or `key_base64`, if it is not UTF-8),
 * `sequencer` and `record`, NUL-terminated; NULL if the call fails. Free it with `tidewire_string_free`.
 * `len_out`: set to its length in bytes without the NUL; may be NULL.
 * `err`: see `tidewire_error_t`; may be NULL.
 *
 * Fails with `TIDEWIRE_INVALID_ARGUMENT` if it is none of that: answer 400. A repeat has the same `id`.
 */
tidewire_result_t tidewire_receive_json(struct tidewire_bytes_t body,
                                        char **json_out,
                                        size_t *len_out,
                                        struct tidewire_error_t **err);

/**
 * Which of two events of one key is newer, by their sequencers.
 *
 * `order_out`: set to -1 if `b` is newer, to 1 if `a` is, to 0 if they are the same.
 *
 * Fails with `TIDEWIRE_INVALID_ARGUMENT` for what has not 1 to 64 hexadecimal digits.
 */
tidewire_result_t tidewire_sequencer_compare(struct tidewire_bytes_t a,
                                             struct tidewire_bytes_t b,
                                             int32_t *order_out,
                                             struct tidewire_error_t **err);

/**
 * Sends events of the log again. They keep their ids and their order for each key, through a lane of the replay's own: live
 * events are neither delayed nor kept in order with it. It goes on after a restart.
 *
 * `options`: read during the call only.
 * `replay_out`: set to the replay, or to NULL if it fails.
 *
 * Fails with `TIDEWIRE_NOT_FOUND` if the rules have no such destination; `_INVALID_ARGUMENT` for a name that is taken or not
 * allowed; `_INVALID_CONFIG` for a destination or filter that is wrong; `_FULL` if too many are under way; `_IO` and the
 * like if it cannot be stored; `_CLOSED`, `_WRONG_PROCESS`.
 */
tidewire_result_t tidewire_replay_start(const struct tidewire_engine_t *engine,
                                        const struct tidewire_replay_options_t *options,
                                        struct tidewire_replay_t **replay_out,
                                        struct tidewire_error_t **err);

/**
 * Finds a replay that is under way, also one of an earlier run.
 *
 * `replay_out`: set to it, or to NULL if it fails.
 *
 * Fails with `TIDEWIRE_NOT_FOUND` if there is none of the name, `_INVALID_ARGUMENT` or `_WRONG_PROCESS`.
 */
tidewire_result_t tidewire_replay_find(const struct tidewire_engine_t *engine,
                                       struct tidewire_bytes_t replay,
                                       struct tidewire_replay_t **replay_out,
                                       struct tidewire_error_t **err);

/**
 * Says again where a replay goes that waits for its destination.
 *
 * `replay`: its name.
 * `destination`: as `tidewire_destination_put` takes it.
 *
 * Fails with `TIDEWIRE_NOT_FOUND`, `_INVALID_CONFIG`, `_INVALID_ARGUMENT`, `_CLOSED` or `_WRONG_PROCESS`.
 */
tidewire_result_t tidewire_replay_resume(const struct tidewire_engine_t *engine,
                                         struct tidewire_bytes_t replay,
                                         struct tidewire_bytes_t destination,
                                         struct tidewire_error_t **err);

/**
 * The replays that are under way, as a JSON list of what `tidewire_replay_json` tells of each.
 */
tidewire_result_t tidewire_replays_json(const struct tidewire_engine_t *engine,
                                        char **json_out,
                                        size_t *len_out,
                                        struct tidewire_error_t **err);

/**
 * How far a replay is: a JSON object with `name`, `state` (`running`, `waiting`, `done`, `cancelled` or `failed`), `read`
 * (how much of the log, from 0 to 1), `found`, `delivered`, `dead_lettered`, `retried`, `missing` and `last_error`. Counts
 * are of this run of the engine. Later versions may add members.
 */
tidewire_result_t tidewire_replay_json(const struct tidewire_replay_t *replay,
                                       char **json_out,
                                       size_t *len_out,
                                       struct tidewire_error_t **err);

/**
 * Waits until a replay has ended.
 *
 * Fails with `TIDEWIRE_TIMEOUT`, also for one that waits for a destination; `_CLOSED` if the engine closes first (it goes on
 * when it is opened again); `_INVALID_ARGUMENT`, `_WRONG_PROCESS`. That it was cancelled or failed is told by
 * `tidewire_replay_json`.
 */
tidewire_result_t tidewire_replay_wait(const struct tidewire_replay_t *replay,
                                       uint64_t timeout_ms,
                                       struct tidewire_error_t **err);

/**
 * Ends a replay before it is through: what is on its way may still arrive, the rest is not sent. Does nothing to one that
 * has ended.
 *
 * Fails with `TIDEWIRE_IO` and the like if it cannot be written down (then the replay goes on when the engine is opened
 * again), `_INVALID_ARGUMENT`, `_WRONG_PROCESS`.
 */
tidewire_result_t tidewire_replay_cancel(const struct tidewire_replay_t *replay,
                                         struct tidewire_error_t **err);

/**
 * Frees what a replay is held by; the replay goes on.
 *
 * `replay`: the address of the pointer, which is set to NULL. NULL, and the address of NULL, are allowed and do nothing. No
 * other call with it may be running or follow.
 */
void tidewire_replay_free(struct tidewire_replay_t **replay);

/**
 * Reserves space for the event of an operation that is about to begin. What can be refused is refused here, so that the
 * commit after the operation is not.
 *
 * `event`: what is known before; at least its type, bucket and key.
 * `options`: NULL for the defaults.
 * `reservation_out`: set to the reservation, or to NULL if the call fails. It is also NULL if no rule wants such an event:
 * then there is nothing to commit, and `tidewire_commit` and `tidewire_abort` take NULL for that.
 *
 * Fails with `TIDEWIRE_FULL` if there is no space, or too much of it is reserved (`engine.reserve_percent`), and with
 * `_INVALID_EVENT`, `_INVALID_ARGUMENT`, `_CLOSED`, `_WRONG_PROCESS`; with a durable intent also with `_TIMEOUT` and
 * `_LOG_FAILED`.
 */
tidewire_result_t tidewire_reserve(const struct tidewire_engine_t *engine,
                                   const struct tidewire_event_t *event,
                                   const struct tidewire_reserve_options_t *options,
                                   struct tidewire_reservation_t **reservation_out,
                                   struct tidewire_error_t **err);

/**
 * The same for the events of an operation on several objects: there is space for all of them or for none. Durable intents
 * of one call are synced together.
 *
 * `events`: `count` of them, all with the same `struct_size`.
 * `reservations_out`: `count` pointers, each set as `tidewire_reserve` does; all to NULL if the call fails.
 */
tidewire_result_t tidewire_reserve_batch(const struct tidewire_engine_t *engine,
                                         const struct tidewire_event_t *events,
                                         size_t count,
                                         const struct tidewire_reserve_options_t *options,
                                         struct tidewire_reservation_t **reservations_out,
                                         struct tidewire_error_t **err);

/**
 * Commits a reservation: the operation came to be, and its event is accepted. To commit once more changes nothing. The
 * reservation is still to be freed.
 *
 * `reservation`: NULL does nothing, for an event that no rule wanted.
 * `fields`: what became known; NULL if nothing did.
 * `options`: NULL for the defaults; only `ack` and `ack_timeout_ms` count.
 *
 * Fails with `TIDEWIRE_INVALID_EVENT` (larger than was reserved, for instance; the reservation stays open),
 * `_INVALID_ARGUMENT` if it was aborted, `_CLOSED` and `_LOG_FAILED` (the event is not accepted; a durable intent is in
 * doubt at the next opening), `_TIMEOUT` (it is accepted, but has not reached the ack level), `_WRONG_PROCESS`.
 */
tidewire_result_t tidewire_commit(const struct tidewire_reservation_t *reservation,
                                  const struct tidewire_commit_t *fields,
                                  const struct tidewire_publish_options_t *options,
                                  struct tidewire_error_t **err);

/**
 * Commits a reservation as `tidewire_commit` does, but does not wait for the ack level: when that is reached,
 * `completions` tells it with `user_data`, if the call succeeds and `reservation` is not NULL.
 */
tidewire_result_t tidewire_commit_submit(const struct tidewire_reservation_t *reservation,
                                         const struct tidewire_commit_t *fields,
                                         const struct tidewire_publish_options_t *options,
                                         const struct tidewire_completions_t *completions,
                                         uint64_t user_data,
                                         struct tidewire_error_t **err);

/**
 * Commits several reservations, and waits once for all of them.
 *
 * `reservations`: `count` of them; those that are NULL or aborted are passed over.
 * `fields`: `count` of them, all with the same `struct_size`, in the same order; NULL if nothing became known.
 *
 * Fails as `tidewire_commit`, with the error of the first that has one: those before it are committed, it and those
 * after it stay open.
 */
tidewire_result_t tidewire_commit_batch(const struct tidewire_reservation_t *const *reservations,
                                        const struct tidewire_commit_t *fields,
                                        size_t count,
                                        const struct tidewire_publish_options_t *options,
                                        struct tidewire_error_t **err);

/**
 * Aborts a reservation: the operation did not come to be, nothing is told of it, and its space is free. To abort once more
 * changes nothing. The reservation is still to be freed.
 *
 * `reservation`: NULL does nothing.
 *
 * Fails with `TIDEWIRE_INVALID_ARGUMENT` if it was committed; `_CLOSED` or `_LOG_FAILED` if a durable intent could not be
 * ended and is in doubt at the next opening; `_WRONG_PROCESS`.
 */
tidewire_result_t tidewire_abort(const struct tidewire_reservation_t *reservation,
                                 struct tidewire_error_t **err);

/**
 * By what a journal of the host can name a reservation with a durable intent: the id that the event has once it is
 * committed.
 *
 * `token_out`: `TIDEWIRE_TOKEN_BYTES` bytes, filled with the token and a NUL.
 *
 * Fails with `TIDEWIRE_NOT_FOUND` if it has no durable intent, or with `_INVALID_ARGUMENT`.
 */
tidewire_result_t tidewire_reservation_token(const struct tidewire_reservation_t *reservation,
                                             char *token_out,
                                             struct tidewire_error_t **err);

/**
 * Frees a reservation. If it is neither committed nor aborted, it is aborted.
 *
 * `reservation`: the address of the pointer to it, which is set to NULL. NULL, and the address of NULL, are allowed and do
 * nothing. No other call with it may be running or follow.
 */
void tidewire_reservation_free(struct tidewire_reservation_t **reservation);

/**
 * Calls back with every reservation with a durable intent that earlier runs left without an end, and that is not resolved
 * yet. The host says of each what became of its operation; until then they are kept, and their part of the log with
 * them.
 *
 * Fails with `TIDEWIRE_INVALID_ARGUMENT` or `_WRONG_PROCESS`.
 */
tidewire_result_t tidewire_in_doubt(const struct tidewire_engine_t *engine,
                                    tidewire_in_doubt_callback_t callback,
                                    void *callback_data,
                                    struct tidewire_error_t **err);

/**
 * Says of a reservation in doubt that its operation came to be, and waits until that is durable. The event has the token's
 * id, and comes after the events of its key that were accepted before this call. To say so again changes nothing.
 *
 * `token`: as `tidewire_in_doubt` or `tidewire_reservation_token` gave it, without a NUL.
 * `event`: the whole event; its type, bucket and key are those that were reserved.
 *
 * Fails with `TIDEWIRE_NOT_FOUND` if nothing of this token is in doubt, `_INVALID_ARGUMENT` if it was aborted before, and
 * as `tidewire_publish`.
 */
tidewire_result_t tidewire_resolve_commit(const struct tidewire_engine_t *engine,
                                          struct tidewire_bytes_t token,
                                          const struct tidewire_event_t *event,
                                          struct tidewire_error_t **err);

/**
 * Says of a reservation in doubt that its operation did not come to be, and waits until that is durable. To say so again
 * changes nothing.
 *
 * Fails with `TIDEWIRE_NOT_FOUND` if nothing of this token is in doubt, `_INVALID_ARGUMENT` if it was committed before,
 * and with `_FULL`, `_TIMEOUT`, `_LOG_FAILED`, `_CLOSED`, `_WRONG_PROCESS`.
 */
tidewire_result_t tidewire_resolve_abort(const struct tidewire_engine_t *engine,
                                         struct tidewire_bytes_t token,
                                         struct tidewire_error_t **err);

/**
 * Puts one rule, new or in the place of the one that it has in its bucket. The others stay as they are. An event that is
 * published after this has returned is matched by the new rule, and one that was published before it was called by the
 * earlier one. It is kept in the data directory, unless the configuration says `engine.rules = "host"`.
 *
 * `rule`: one `[[rule]]` as the configuration has it, with the named filters that it uses; or its table as a JSON object:
 * `{"id": "images", "bucket": "b", "events": ["s3:ObjectCreated:*"], "prefix": "in/", "destinations": ["d"]}`.
 * `expect`: the version that the rule must have now, `TIDEWIRE_EXPECT_ANYTHING` or `TIDEWIRE_EXPECT_ABSENT`.
 * `version_out`: set to the rule's new version; may be NULL.
 *
 * Fails with `TIDEWIRE_INVALID_CONFIG` if the rule is wrong; `_CONFLICT` if `expect` does not hold, or the rule belongs to
 * the configuration; `_IO` and the like if it cannot be stored; `_CLOSED`, `_WRONG_PROCESS`, `_INVALID_ARGUMENT`. Then
 * nothing has changed.
 */
tidewire_result_t tidewire_rule_put(const struct tidewire_engine_t *engine,
                                    struct tidewire_bytes_t rule,
                                    uint64_t expect,
                                    uint64_t *version_out,
                                    struct tidewire_error_t **err);

/**
 * Deletes a rule that was put. What it has matched is delivered all the same.
 *
 * `bucket`: empty for a rule of every bucket.
 * `expect`: as for `tidewire_rule_put`.
 *
 * Fails with `TIDEWIRE_NOT_FOUND` if there is none that was put; otherwise as `tidewire_rule_put`.
 */
tidewire_result_t tidewire_rule_delete(const struct tidewire_engine_t *engine,
                                       struct tidewire_bytes_t bucket,
                                       struct tidewire_bytes_t id,
                                       uint64_t expect,
                                       struct tidewire_error_t **err);

/**
 * One rule: the one that was put, or else the one of the configuration.
 *
 * `bucket`: empty for a rule of every bucket.
 * `json_out`: set to NUL-terminated UTF-8: an object with `rule` (as `tidewire_rule_put` takes it), `version`, `owner`
 * (`configuration` or `callers`), `inactive` (why it is not in force, or null) and `matched` (the events that it wanted).
 * NULL if the call fails. Free it with `tidewire_string_free`.
 * `len_out`: set to its length in bytes without the NUL; may be NULL.
 *
 * Fails with `TIDEWIRE_NOT_FOUND`, `_INVALID_ARGUMENT` or `_WRONG_PROCESS`.
 */
tidewire_result_t tidewire_rule_json(const struct tidewire_engine_t *engine,
                                     struct tidewire_bytes_t bucket,
                                     struct tidewire_bytes_t id,
                                     char **json_out,
                                     size_t *len_out,
                                     struct tidewire_error_t **err);

/**
 * All rules, also those that are not in force: a JSON object with `version`, which grows with each change of rules and
 * destinations, and `rules`, a list of what `tidewire_rule_json` tells of each.
 */
tidewire_result_t tidewire_rules_json(const struct tidewire_engine_t *engine,
                                      char **json_out,
                                      size_t *len_out,
                                      struct tidewire_error_t **err);

/**
 * Checks a configuration without opening or changing anything.
 *
 * `options`: as for `tidewire_open`; read during the call only.
 *
 * Fails as `tidewire_open` does for a configuration that is wrong.
 */
tidewire_result_t tidewire_validate(const struct tidewire_options_t *options, struct tidewire_error_t **err);

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
 * What the engine has counted, as a text to be scraped: all names begin with `tidewire_`, and what is about a destination
 * has the label `destination`.
 *
 * `format`: `TIDEWIRE_METRICS_PROMETHEUS` (`text/plain; version=0.0.4`) or `TIDEWIRE_METRICS_OPENMETRICS`
 * (`application/openmetrics-text; version=1.0.0`).
 * `text_out`: set to NUL-terminated UTF-8, or to NULL if the call fails. Free it with `tidewire_string_free`.
 * `len_out`: set to its length in bytes without the NUL; may be NULL.
 *
 * Fails with `TIDEWIRE_INVALID_ARGUMENT` or `_WRONG_PROCESS`.
 */
tidewire_result_t tidewire_prometheus(const struct tidewire_engine_t *engine,
                                      tidewire_metrics_format_t format,
                                      char **text_out,
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
#define TIDEWIRE_RESERVE_OPTIONS_INIT tidewire_initialised_<tidewire_reserve_options_t>()
#define TIDEWIRE_COMMIT_INIT tidewire_initialised_<tidewire_commit_t>()
#define TIDEWIRE_COMPLETIONS_OPTIONS_INIT tidewire_initialised_<tidewire_completions_options_t>()
#define TIDEWIRE_DEAD_LETTER_FILTER_INIT tidewire_initialised_<tidewire_dead_letter_filter_t>()
#define TIDEWIRE_REPLAY_OPTIONS_INIT tidewire_initialised_<tidewire_replay_options_t>()
#define TIDEWIRE_READ_OPTIONS_INIT tidewire_initialised_<tidewire_read_options_t>()
#define TIDEWIRE_PUBLISHED_INIT tidewire_initialised_<tidewire_published_t>()
#define TIDEWIRE_ITEM_INIT tidewire_initialised_<tidewire_item_t>()
#define TIDEWIRE_NOTIFICATION_OPTIONS_INIT tidewire_initialised_<tidewire_notification_options_t>()
#define TIDEWIRE_HANDLER_INIT tidewire_initialised_<tidewire_handler_t>()
#define TIDEWIRE_BATCH_INFO_INIT tidewire_initialised_<tidewire_batch_info_t>()
#define TIDEWIRE_BATCH_EVENT_INIT tidewire_initialised_<tidewire_batch_event_t>()
#define TIDEWIRE_ENRICHER_INIT tidewire_initialised_<tidewire_enricher_t>()
#else
/** The initial value of a `tidewire_options_t`. */
#define TIDEWIRE_OPTIONS_INIT { .struct_size = sizeof(tidewire_options_t) }
/** The initial value of a `tidewire_event_t`. */
#define TIDEWIRE_EVENT_INIT { .struct_size = sizeof(tidewire_event_t) }
/** The initial value of a `tidewire_publish_options_t`. */
#define TIDEWIRE_PUBLISH_OPTIONS_INIT { .struct_size = sizeof(tidewire_publish_options_t) }
/** The initial value of a `tidewire_stats_t`. */
#define TIDEWIRE_STATS_INIT { .struct_size = sizeof(tidewire_stats_t) }
/** The initial value of a `tidewire_reserve_options_t`. */
#define TIDEWIRE_RESERVE_OPTIONS_INIT { .struct_size = sizeof(tidewire_reserve_options_t) }
/** The initial value of a `tidewire_commit_t`. */
#define TIDEWIRE_COMMIT_INIT { .struct_size = sizeof(tidewire_commit_t) }
/** The initial value of a `tidewire_completions_options_t`. */
#define TIDEWIRE_COMPLETIONS_OPTIONS_INIT { .struct_size = sizeof(tidewire_completions_options_t) }
/** The initial value of a `tidewire_dead_letter_filter_t`. */
#define TIDEWIRE_DEAD_LETTER_FILTER_INIT { .struct_size = sizeof(tidewire_dead_letter_filter_t) }
/** The initial value of a `tidewire_replay_options_t`. */
#define TIDEWIRE_REPLAY_OPTIONS_INIT { .struct_size = sizeof(tidewire_replay_options_t) }
/** The initial value of a `tidewire_read_options_t`. */
#define TIDEWIRE_READ_OPTIONS_INIT { .struct_size = sizeof(tidewire_read_options_t) }
/** The initial value of a `tidewire_published_t`. */
#define TIDEWIRE_PUBLISHED_INIT { .struct_size = sizeof(tidewire_published_t) }
/** The initial value of a `tidewire_item_t`. */
#define TIDEWIRE_ITEM_INIT { .struct_size = sizeof(tidewire_item_t) }
/** The initial value of a `tidewire_notification_options_t`. */
#define TIDEWIRE_NOTIFICATION_OPTIONS_INIT { .struct_size = sizeof(tidewire_notification_options_t) }
/** The initial value of a `tidewire_handler_t`. */
#define TIDEWIRE_HANDLER_INIT { .struct_size = sizeof(tidewire_handler_t) }
/** The initial value of a `tidewire_batch_info_t`. */
#define TIDEWIRE_BATCH_INFO_INIT { .struct_size = sizeof(tidewire_batch_info_t) }
/** The initial value of a `tidewire_batch_event_t`. */
#define TIDEWIRE_BATCH_EVENT_INIT { .struct_size = sizeof(tidewire_batch_event_t) }
/** The initial value of a `tidewire_enricher_t`. */
#define TIDEWIRE_ENRICHER_INIT { .struct_size = sizeof(tidewire_enricher_t) }
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
