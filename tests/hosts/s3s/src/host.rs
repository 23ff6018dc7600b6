//! The store's operations, and an event after each change.

use std::hash::{BuildHasher, RandomState};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use s3s::dto::*;
use s3s::{S3, S3Request, S3Response, S3Result, s3_error};
use s3s_fs::FileSystem;
use tidewire::{Ack, Engine, ErrorKind, Event, KnownType, OnFull, PublishOptions};
use tokio::sync::{Mutex, MutexGuard};

use crate::Peer;

/// Keys share this many locks.
const LOCKS: usize = 256;
/// How long an event waits for space in the engine, and how often it asks.
const FULL_TIMEOUT: Duration = Duration::from_secs(10);
const FULL_PAUSE: Duration = Duration::from_millis(5);

/// The store behind, and the engine beside it.
pub struct Host {
    files: FileSystem,
    engine: Engine,
    locks: Vec<Mutex<()>>,
    hasher: RandomState,
    run: u64,
    requests: AtomicU64,
}

/// What an event says of the request that caused it, the same for every operation.
struct Cause {
    method: &'static str,
    request_id: String,
    requester: String,
    source_ip: String,
    user_agent: String,
}

impl Host {
    pub fn new(files: FileSystem, engine: Engine) -> Host {
        Host {
            files,
            engine,
            locks: (0..LOCKS).map(|_| Mutex::default()).collect(),
            hasher: RandomState::new(),
            run: SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_millis() as u64),
            requests: AtomicU64::new(0),
        }
    }

    /// Changes of one key come one after the other, each with its event.
    async fn lock(&self, bucket: &str, key: &str) -> MutexGuard<'_, ()> {
        let lock = self.hasher.hash_one((bucket, key)) as usize % LOCKS;
        self.locks[lock].lock().await
    }

    fn cause<T>(&self, method: &'static str, req: &S3Request<T>) -> Cause {
        let header = |name: &str| req.headers.get(name).and_then(|v| v.to_str().ok()).unwrap_or_default().to_owned();
        let number = self.requests.fetch_add(1, Ordering::Relaxed);
        Cause {
            method,
            request_id: format!("{:012X}{number:08X}", self.run),
            requester: req.credentials.as_ref().map(|c| c.access_key.clone()).unwrap_or_default(),
            source_ip: req.extensions.get::<Peer>().map(|p| p.0.ip().to_string()).unwrap_or_default(),
            user_agent: header("user-agent"),
        }
    }

    /// Tells of an object that was written, as it now is.
    async fn created(&self, kind: KnownType, bucket: &str, key: &str, version: &str, cause: &Cause) -> S3Result<()> {
        if !self.engine.is_interested(bucket, kind.into()) {
            return Ok(());
        }
        // A store with an index of its own knows all this already.
        let input = HeadObjectInput { bucket: bucket.to_owned(), key: key.to_owned(), ..Default::default() };
        let head = self.files.head_object(internal(input)).await?.output;
        let metadata = head.metadata.unwrap_or_default();
        let metadata: Vec<(&str, &str)> = metadata.iter().map(|(k, v)| (k.as_str(), v.as_str())).collect();
        let content_type = head.content_type.unwrap_or_default();

        let mut event = Event::new(kind.into(), bucket, key.as_bytes());
        event.size = head.content_length.and_then(|n| n.try_into().ok());
        event.etag = head.e_tag.as_ref().map(ETag::value).unwrap_or_default();
        event.version_id = version;
        event.content_type = &content_type;
        event.metadata = &metadata;
        self.publish(event, cause).await
    }

    /// Tells of an object that was removed.
    async fn removed(&self, bucket: &str, key: &str, version: &str, marker: bool, cause: &Cause) -> S3Result<()> {
        let kind = if marker { KnownType::ObjectRemovedDeleteMarkerCreated } else { KnownType::ObjectRemovedDelete };
        let mut event = Event::new(kind.into(), bucket, key.as_bytes());
        event.version_id = version;
        self.publish(event, cause).await
    }

    /// Publishes, and comes back when the event is durable.
    async fn publish(&self, mut event: Event<'_>, cause: &Cause) -> S3Result<()> {
        event.method = cause.method;
        event.request_id = &cause.request_id;
        event.requester = &cause.requester;
        event.source_ip = &cause.source_ip;
        event.user_agent = &cause.user_agent;
        let options = PublishOptions { ack: Ack::Synced, on_full: OnFull::Refuse, ..PublishOptions::default() };
        let deadline = Instant::now() + FULL_TIMEOUT;
        let receipt = loop {
            match self.engine.submit(&event, &options) {
                Err(e) if e.kind() == ErrorKind::Full && Instant::now() < deadline => {
                    tokio::time::sleep(FULL_PAUSE).await;
                }
                submitted => break submitted,
            }
        };
        let durable = match receipt {
            Ok(Some(receipt)) => receipt.reached(Ack::Synced).await,
            Ok(None) => Ok(()),
            Err(e) => Err(e),
        };
        durable.map_err(|e| {
            log::error!("{}: the event of {} {}: {e}", cause.request_id, cause.method, event.bucket);
            s3_error!(InternalError, "the change was made, but could not be recorded; do it again")
        })
    }

    async fn put(&self, req: S3Request<PutObjectInput>) -> S3Result<S3Response<PutObjectOutput>> {
        let cause = self.cause("PutObject", &req);
        let (bucket, key) = (req.input.bucket.clone(), req.input.key.clone());
        self.check_bucket(&bucket).await?;
        let _lock = self.lock(&bucket, &key).await;
        let done = self.files.put_object(req).await?;
        let version = done.output.version_id.as_deref().unwrap_or_default();
        self.created(KnownType::ObjectCreatedPut, &bucket, &key, version, &cause).await?;
        Ok(with_id(done, &cause))
    }

    async fn copy(&self, req: S3Request<CopyObjectInput>) -> S3Result<S3Response<CopyObjectOutput>> {
        let cause = self.cause("CopyObject", &req);
        let (bucket, key) = (req.input.bucket.clone(), req.input.key.clone());
        let _lock = self.lock(&bucket, &key).await;
        let done = self.files.copy_object(req).await?;
        let version = done.output.version_id.as_deref().unwrap_or_default();
        self.created(KnownType::ObjectCreatedCopy, &bucket, &key, version, &cause).await?;
        Ok(with_id(done, &cause))
    }

    async fn complete(
        &self,
        req: S3Request<CompleteMultipartUploadInput>,
    ) -> S3Result<S3Response<CompleteMultipartUploadOutput>> {
        let cause = self.cause("CompleteMultipartUpload", &req);
        let (bucket, key) = (req.input.bucket.clone(), req.input.key.clone());
        self.check_bucket(&bucket).await?;
        let _lock = self.lock(&bucket, &key).await;
        let mut done = self.files.complete_multipart_upload(req).await?;
        // The store may go on working after it has answered; the object is there when it is done.
        if let Some(rest) = done.output.future.take() {
            done.output = rest.await?;
        }
        let version = done.output.version_id.as_deref().unwrap_or_default();
        self.created(KnownType::ObjectCreatedCompleteMultipartUpload, &bucket, &key, version, &cause).await?;
        Ok(with_id(done, &cause))
    }

    async fn delete(&self, req: S3Request<DeleteObjectInput>) -> S3Result<S3Response<DeleteObjectOutput>> {
        let cause = self.cause("DeleteObject", &req);
        let (bucket, key) = (req.input.bucket.clone(), req.input.key.clone());
        let _lock = self.lock(&bucket, &key).await;
        let done = self.files.delete_object(req).await?;
        let version = done.output.version_id.as_deref().unwrap_or_default();
        self.removed(&bucket, &key, version, done.output.delete_marker == Some(true), &cause).await?;
        Ok(with_id(done, &cause))
    }

    async fn delete_many(&self, req: S3Request<DeleteObjectsInput>) -> S3Result<S3Response<DeleteObjectsOutput>> {
        let cause = self.cause("DeleteObjects", &req);
        let bucket = req.input.bucket.clone();
        self.check_bucket(&bucket).await?;
        // Each lock once and in order, so that two such requests never wait for each other.
        let keys = req.input.delete.objects.iter();
        let mut numbers: Vec<usize> =
            keys.map(|o| self.hasher.hash_one((bucket.as_str(), o.key.as_str())) as usize % LOCKS).collect();
        numbers.sort_unstable();
        numbers.dedup();
        let mut locks = Vec::new();
        for number in numbers {
            locks.push(self.locks[number].lock().await);
        }
        let done = self.files.delete_objects(req).await?;
        for object in done.output.deleted.iter().flatten() {
            let key = object.key.as_deref().unwrap_or_default();
            let marker = object.delete_marker == Some(true);
            let version = if marker { &object.delete_marker_version_id } else { &object.version_id };
            self.removed(&bucket, key, version.as_deref().unwrap_or_default(), marker, &cause).await?;
        }
        drop(locks);
        Ok(with_id(done, &cause))
    }

    /// This store makes a bucket's directory when it needs it, and says that it removed what was never there. S3 refuses
    /// both.
    async fn check_bucket(&self, bucket: &str) -> S3Result<()> {
        let input = HeadBucketInput { bucket: bucket.to_owned(), ..Default::default() };
        self.files.head_bucket(internal(input)).await.map(|_| ())
    }
}

/// A request of the host itself.
fn internal<T>(input: T) -> S3Request<T> {
    S3Request {
        input,
        method: Default::default(),
        uri: Default::default(),
        headers: Default::default(),
        extensions: Default::default(),
        credentials: None,
        region: None,
        service: None,
        trailing_headers: None,
    }
}

/// The client learns the id that its event has.
fn with_id<T>(mut response: S3Response<T>, cause: &Cause) -> S3Response<T> {
    if let Ok(id) = cause.request_id.parse() {
        response.headers.insert("x-amz-request-id", id);
    }
    response
}

/// The operations: those that change objects go through the host, the others to the store as they are.
macro_rules! operations {
    (
        host { $($own:ident($own_input:ident) -> $own_output:ident = $method:ident,)* }
        store { $($name:ident($input:ident) -> $output:ident,)* }
    ) => {
        #[async_trait::async_trait]
        impl S3 for Host {
            $(
                async fn $own(&self, req: S3Request<$own_input>) -> S3Result<S3Response<$own_output>> {
                    self.$method(req).await
                }
            )*
            $(
                async fn $name(&self, req: S3Request<$input>) -> S3Result<S3Response<$output>> {
                    self.files.$name(req).await
                }
            )*
        }
    };
}

operations! {
    host {
        put_object(PutObjectInput) -> PutObjectOutput = put,
        copy_object(CopyObjectInput) -> CopyObjectOutput = copy,
        complete_multipart_upload(CompleteMultipartUploadInput) -> CompleteMultipartUploadOutput = complete,
        delete_object(DeleteObjectInput) -> DeleteObjectOutput = delete,
        delete_objects(DeleteObjectsInput) -> DeleteObjectsOutput = delete_many,
    }

    store {
        abort_multipart_upload(AbortMultipartUploadInput) -> AbortMultipartUploadOutput,
        create_bucket(CreateBucketInput) -> CreateBucketOutput,
        create_multipart_upload(CreateMultipartUploadInput) -> CreateMultipartUploadOutput,
        delete_bucket(DeleteBucketInput) -> DeleteBucketOutput,
        get_bucket_location(GetBucketLocationInput) -> GetBucketLocationOutput,
        get_object(GetObjectInput) -> GetObjectOutput,
        head_bucket(HeadBucketInput) -> HeadBucketOutput,
        head_object(HeadObjectInput) -> HeadObjectOutput,
        list_buckets(ListBucketsInput) -> ListBucketsOutput,
        list_objects(ListObjectsInput) -> ListObjectsOutput,
        list_objects_v2(ListObjectsV2Input) -> ListObjectsV2Output,
        list_parts(ListPartsInput) -> ListPartsOutput,
        upload_part(UploadPartInput) -> UploadPartOutput,
        upload_part_copy(UploadPartCopyInput) -> UploadPartCopyOutput,
    }
}
