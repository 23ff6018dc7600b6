//! Event types: an open registry of names.
//!
//! A known type has a name of the S3 notification documents (or of a peer that extended them), or one of the families
//! `Access`, `Configuration` and `System` that S3 has no name for. A host adds its own names when it opens an engine.
//! The numbers are written into logs: they never change and are never used again.

use std::borrow::Cow;
use std::fmt;

use crate::error::{Error, Result};

/// What kind of resource an event is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Scope {
    /// An object: bucket and key are required.
    Object,
    /// A bucket: the bucket is required, the key may be empty.
    Bucket,
    /// The store itself: bucket and key may be empty; the key, if given, names the part (a node, a disk, a pool).
    System,
}

macro_rules! known_types {
    ($($code:literal $ident:ident $scope:ident $name:literal $(data $data:literal)? ;)*) => {
        /// A type that Tidewire knows by number.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        #[repr(u16)]
        #[non_exhaustive]
        pub enum KnownType {
            $(#[doc = concat!("`", $name, "`", $(" with `data` as `", $data, "`",)?)] $ident = $code,)*
        }

        impl KnownType {
            /// Every known type, in the order of the numbers.
            pub const ALL: &'static [KnownType] = &[$(KnownType::$ident,)*];

            /// The type of a number read from a frame.
            pub fn from_code(code: u16) -> Option<KnownType> {
                match code { $($code => Some(KnownType::$ident),)* _ => None }
            }

            /// The name as rules and notification documents write it, with `s3:` where S3 has it.
            pub fn name(self) -> &'static str {
                match self { $(KnownType::$ident => $name,)* }
            }

            /// What kind of resource the event is about.
            pub fn scope(self) -> Scope {
                match self { $(KnownType::$ident => Scope::$scope,)* }
            }

            /// The JSON schema, in short, of [`crate::Event::data`] for this type; `None` if it has none of its own.
            pub fn data_schema(self) -> Option<&'static str> {
                match self { $(KnownType::$ident => { None::<&'static str>$(.or(Some($data)))? })* }
            }
        }
    };
}

known_types! {
    1  ObjectCreatedPut Object "s3:ObjectCreated:Put";
    2  ObjectCreatedPost Object "s3:ObjectCreated:Post";
    3  ObjectCreatedCopy Object "s3:ObjectCreated:Copy";
    4  ObjectCreatedCompleteMultipartUpload Object "s3:ObjectCreated:CompleteMultipartUpload";
    5  ObjectRemovedDelete Object "s3:ObjectRemoved:Delete";
    6  ObjectRemovedDeleteMarkerCreated Object "s3:ObjectRemoved:DeleteMarkerCreated";
    7  ObjectRemovedDeleteAllVersions Object "s3:ObjectRemoved:DeleteAllVersions";
    8  ObjectRemovedNoop Object "s3:ObjectRemoved:NoOP";
    9  LifecycleExpirationDelete Object "s3:LifecycleExpiration:Delete";
    10 LifecycleExpirationDeleteMarkerCreated Object "s3:LifecycleExpiration:DeleteMarkerCreated";
    11 LifecycleExpirationAbortMultipartUpload Object "s3:ObjectLifecycle:Expiration:AbortMultipartUpload";
    12 LifecycleTransition Object "s3:LifecycleTransition" data r#"{"destinationStorageClass": string}"#;
    13 LifecycleTransitionFailed Object "s3:ObjectTransition:Failed" data r#"{"destinationStorageClass": string}"#;
    14 IntelligentTiering Object "s3:IntelligentTiering" data r#"{"destinationAccessTier": string}"#;
    15 ObjectRestorePost Object "s3:ObjectRestore:Post";
    16 ObjectRestoreCompleted Object "s3:ObjectRestore:Completed" data r#"{"lifecycleRestorationExpiryTime": string, "lifecycleRestoreStorageClass": string}"#;
    17 ObjectRestoreDelete Object "s3:ObjectRestore:Delete";
    18 ReducedRedundancyLostObject Object "s3:ReducedRedundancyLostObject";
    19 ReplicationFailed Object "s3:Replication:OperationFailedReplication" data r#"{"replicationRuleId": string, "destinationBucket": string, "s3Operation": string, "requestTime": string, "failureReason": string}"#;
    20 ReplicationMissedThreshold Object "s3:Replication:OperationMissedThreshold" data r#"{"replicationRuleId": string, "destinationBucket": string, "s3Operation": string, "requestTime": string, "threshold": string}"#;
    21 ReplicationReplicatedAfterThreshold Object "s3:Replication:OperationReplicatedAfterThreshold" data r#"{"replicationRuleId": string, "destinationBucket": string, "s3Operation": string, "requestTime": string, "threshold": string, "replicationTime": string}"#;
    22 ReplicationNotTracked Object "s3:Replication:OperationNotTracked" data r#"{"replicationRuleId": string, "destinationBucket": string, "s3Operation": string, "requestTime": string}"#;
    23 ReplicationCompleted Object "s3:Replication:OperationCompletedReplication" data r#"{"replicationRuleId": string, "destinationBucket": string, "s3Operation": string, "requestTime": string}"#;
    24 ReplicaCreated Object "s3:ObjectSynced:Create";
    25 ReplicaDeleted Object "s3:ObjectSynced:Delete";
    26 ReplicaDeleteMarkerCreated Object "s3:ObjectSynced:DeletionMarkerCreated";
    27 ObjectTaggingPut Object "s3:ObjectTagging:Put";
    28 ObjectTaggingDelete Object "s3:ObjectTagging:Delete";
    29 ObjectAclPut Object "s3:ObjectAcl:Put";
    30 ObjectAnnotationPut Object "s3:ObjectAnnotation:Put";
    31 ObjectAnnotationDelete Object "s3:ObjectAnnotation:Delete";
    32 ObjectMetadataPut Object "s3:ObjectMetadata:Put";
    33 ObjectRetentionPut Object "s3:ObjectRetention:Put";
    34 ObjectLegalHoldPut Object "s3:ObjectLegalHold:Put";
    35 ObjectRenamed Object "s3:ObjectRenamed" data r#"{"sourceKey": string}"#;
    40 ObjectAccessedGet Object "s3:ObjectAccessed:Get";
    41 ObjectAccessedHead Object "s3:ObjectAccessed:Head";
    42 ObjectAccessedGetRetention Object "s3:ObjectAccessed:GetRetention";
    43 ObjectAccessedGetLegalHold Object "s3:ObjectAccessed:GetLegalHold";
    44 ObjectAccessedAttributes Object "s3:ObjectAccessed:Attributes";
    45 BucketAccessedList Bucket "s3:BucketAccessed:List";
    50 AccessDeniedRead Bucket "Access:Denied:Read" data r#"{"reason": string, "statusCode": number}"#;
    51 AccessDeniedWrite Bucket "Access:Denied:Write" data r#"{"reason": string, "statusCode": number}"#;
    52 AccessDeniedDelete Bucket "Access:Denied:Delete" data r#"{"reason": string, "statusCode": number}"#;
    53 AccessDeniedList Bucket "Access:Denied:List" data r#"{"reason": string, "statusCode": number}"#;
    54 AccessDeniedAdmin Bucket "Access:Denied:Admin" data r#"{"reason": string, "statusCode": number}"#;
    60 BucketCreated Bucket "s3:BucketCreated";
    61 BucketRemoved Bucket "s3:BucketRemoved";
    62 ScannerManyVersions Object "s3:Scanner:ManyVersions" data r#"{"versions": number}"#;
    63 ScannerLargeVersions Object "s3:Scanner:LargeVersions" data r#"{"versions": number, "bytes": number}"#;
    64 ScannerBigPrefix Object "s3:Scanner:BigPrefix" data r#"{"prefixes": number}"#;
    70 ConfigurationPolicyPut Bucket "Configuration:Policy:Put" data r#"{"document": any, "previous": any}"#;
    71 ConfigurationPolicyDelete Bucket "Configuration:Policy:Delete" data r#"{"previous": any}"#;
    72 ConfigurationAclPut Bucket "Configuration:Acl:Put" data r#"{"document": any, "previous": any}"#;
    73 ConfigurationAclDelete Bucket "Configuration:Acl:Delete" data r#"{"previous": any}"#;
    74 ConfigurationLifecyclePut Bucket "Configuration:Lifecycle:Put" data r#"{"document": any, "previous": any}"#;
    75 ConfigurationLifecycleDelete Bucket "Configuration:Lifecycle:Delete" data r#"{"previous": any}"#;
    76 ConfigurationReplicationPut Bucket "Configuration:Replication:Put" data r#"{"document": any, "previous": any}"#;
    77 ConfigurationReplicationDelete Bucket "Configuration:Replication:Delete" data r#"{"previous": any}"#;
    78 ConfigurationNotificationPut Bucket "Configuration:Notification:Put" data r#"{"document": any, "previous": any}"#;
    79 ConfigurationNotificationDelete Bucket "Configuration:Notification:Delete" data r#"{"previous": any}"#;
    80 ConfigurationEncryptionPut Bucket "Configuration:Encryption:Put" data r#"{"document": any, "previous": any}"#;
    81 ConfigurationEncryptionDelete Bucket "Configuration:Encryption:Delete" data r#"{"previous": any}"#;
    82 ConfigurationVersioningPut Bucket "Configuration:Versioning:Put" data r#"{"document": any, "previous": any}"#;
    83 ConfigurationVersioningDelete Bucket "Configuration:Versioning:Delete" data r#"{"previous": any}"#;
    90 SystemHealthOk System "System:Health:Ok" data r#"{"component": string, "detail": string}"#;
    91 SystemHealthDegraded System "System:Health:Degraded" data r#"{"component": string, "detail": string}"#;
    92 SystemHealthFailed System "System:Health:Failed" data r#"{"component": string, "detail": string}"#;
    95 SystemCapacityNormal System "System:Capacity:Normal" data r#"{"component": string, "usedBytes": number, "totalBytes": number, "thresholdPercent": number}"#;
    96 SystemCapacityWarning System "System:Capacity:Warning" data r#"{"component": string, "usedBytes": number, "totalBytes": number, "thresholdPercent": number}"#;
    97 SystemCapacityCritical System "System:Capacity:Critical" data r#"{"component": string, "usedBytes": number, "totalBytes": number, "thresholdPercent": number}"#;
    100 TestEvent Bucket "s3:TestEvent";
    101 SystemDestinationPending System "System:Destination:Pending" data r#"{"destination": string, "reason": string}"#;
    102 SystemDestinationVerified System "System:Destination:Verified" data r#"{"destination": string, "reason": string}"#;
    103 SystemDestinationSuspended System "System:Destination:Suspended" data r#"{"destination": string, "reason": string}"#;
    104 SystemDestinationDisabled System "System:Destination:Disabled" data r#"{"destination": string, "reason": string}"#;
    105 SystemDestinationResumed System "System:Destination:Resumed" data r#"{"destination": string, "reason": string}"#;
    106 SystemDestinationFailing System "System:Destination:Failing" data r#"{"destination": string, "reason": string, "percent": number}"#;
    107 SystemDestinationBreakerOpened System "System:Destination:BreakerOpened" data r#"{"destination": string, "reason": string}"#;
}

/// Names that peers use for a known type. Exact names are understood everywhere, and wildcards reach them too, unless
/// their family is one that S3 itself defines (so that `s3:ObjectCreated:*` does not come to mean tagging).
const ALIASES: &[(&str, KnownType)] = &[
    ("s3:ObjectCreated:PutTagging", KnownType::ObjectTaggingPut),
    ("s3:ObjectCreated:DeleteTagging", KnownType::ObjectTaggingDelete),
    ("s3:ObjectCreated:PutRetention", KnownType::ObjectRetentionPut),
    ("s3:ObjectCreated:PutLegalHold", KnownType::ObjectLegalHoldPut),
    ("s3:ObjectTransition:Complete", KnownType::LifecycleTransition),
    ("s3:LifecycleDelMarkerExpiration:Delete", KnownType::LifecycleExpirationDelete),
    ("s3:ObjectLifecycle:Expiration:Current", KnownType::LifecycleExpirationDelete),
    ("s3:ObjectLifecycle:Expiration:NonCurrent", KnownType::LifecycleExpirationDelete),
    ("s3:ObjectLifecycle:Expiration:DeleteMarker", KnownType::LifecycleExpirationDeleteMarkerCreated),
    ("s3:ObjectLifecycle:Transition:Current", KnownType::LifecycleTransition),
    ("s3:ObjectLifecycle:Transition:NonCurrent", KnownType::LifecycleTransition),
    ("s3:Replication:Create", KnownType::ReplicaCreated),
    ("s3:Replication:Delete", KnownType::ReplicaDeleted),
    ("s3:Replication:DeletionMarkerCreated", KnownType::ReplicaDeleteMarkerCreated),
];

/// Families of S3 that peers put names of their own into.
const FAMILIES_OF_S3: &[&str] = &["s3:ObjectCreated:", "s3:Replication:"];

/// First segments that hosts may not use for their own names.
const RESERVED: &[&str] = &["s3", "Access", "Configuration", "System", "tidewire"];

/// The longest name of an event type, in bytes.
pub(crate) const TYPE_NAME_BYTES_MAX: usize = 128;

impl KnownType {
    /// The name as S3 writes it into a record: without `s3:`.
    pub fn record_name(self) -> &'static str {
        let name = self.name();
        name.strip_prefix("s3:").unwrap_or(name)
    }

    /// The type of an exact name, with or without `s3:`, or of a peer's name for it.
    pub fn from_name(name: &str) -> Option<KnownType> {
        let hit = |full: &str| {
            KnownType::ALL
                .iter()
                .copied()
                .find(|t| t.name() == full)
                .or_else(|| ALIASES.iter().find(|(alias, _)| *alias == full).map(|(_, t)| *t))
        };
        hit(name).or_else(|| if name.starts_with("s3:") { None } else { hit(&format!("s3:{name}")) })
    }
}

/// The type of one event: known by number, or a name that the host added.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum EventType<'a> {
    /// One of the table.
    Known(KnownType),
    /// A name of the host, registered when the engine was opened.
    Custom(&'a str),
}

impl Default for EventType<'_> {
    fn default() -> Self {
        EventType::Known(KnownType::ObjectCreatedPut)
    }
}

impl From<KnownType> for EventType<'_> {
    fn from(t: KnownType) -> Self {
        EventType::Known(t)
    }
}

impl<'a> EventType<'a> {
    /// The type of a name. Known names may lack `s3:`.
    ///
    /// # Errors
    /// [`crate::ErrorKind::InvalidEvent`] if the name is malformed, or belongs to a reserved family and is not known.
    pub fn parse(name: &'a str) -> Result<EventType<'a>> {
        if let Some(t) = KnownType::from_name(name) {
            return Ok(EventType::Known(t));
        }
        check_custom_name(name)?;
        Ok(EventType::Custom(name))
    }

    /// The name, with `s3:` where S3 has it.
    pub fn name(&self) -> &'a str {
        match *self {
            EventType::Known(t) => t.name(),
            EventType::Custom(name) => name,
        }
    }

    /// What kind of resource the event is about.
    pub fn scope(&self) -> Scope {
        match self {
            EventType::Known(t) => t.scope(),
            EventType::Custom(_) => Scope::Bucket,
        }
    }
}

impl fmt::Display for EventType<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

fn check_custom_name(name: &str) -> Result<()> {
    let unknown = || {
        let e = Error::invalid_event(format!("unknown event type `{name}`")).at("event_type");
        match nearest_type(name) {
            Some(near) => e.remedy(format!("did you mean `{near}`?")),
            None => {
                e.remedy("use a name of the registry, or register your own (`engine.event_types`) as `family:Name`")
            }
        }
    };
    let mut segments = name.split(':');
    let family = segments.next().unwrap_or_default();
    let legal =
        |s: &str| !s.is_empty() && s.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-' | b'.'));
    let rest: Vec<&str> = segments.collect();
    if name.len() > TYPE_NAME_BYTES_MAX
        || RESERVED.iter().any(|r| r.eq_ignore_ascii_case(family))
        || !legal(family)
        || rest.is_empty()
        || rest.len() > 3
        || !rest.iter().all(|s| legal(s))
    {
        return Err(unknown());
    }
    Ok(())
}

fn nearest_type(name: &str) -> Option<&'static str> {
    let full = |n: &str| if n.contains("s3:") || !n.contains(':') { n.to_owned() } else { format!("s3:{n}") };
    KnownType::ALL
        .iter()
        .map(|t| (strsim::jaro_winkler(t.name(), name).max(strsim::jaro_winkler(t.name(), &full(name))), t.name()))
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .filter(|(score, _)| *score > 0.8)
        .map(|(_, name)| name)
}

/// The names an engine accepts: the known ones, and those its host registered.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EventTypes {
    custom: Vec<String>,
}

impl EventTypes {
    /// The registry with these names of the host in addition.
    ///
    /// # Errors
    /// [`crate::ErrorKind::InvalidEvent`] for a malformed or reserved name.
    pub fn with_custom<S: AsRef<str>>(names: impl IntoIterator<Item = S>) -> Result<EventTypes> {
        let mut custom = Vec::new();
        for name in names {
            let name = name.as_ref();
            check_custom_name(name)?;
            if !custom.iter().any(|n| n == name) {
                custom.push(name.to_owned());
            }
        }
        Ok(EventTypes { custom })
    }

    /// The host's names.
    pub fn custom(&self) -> &[String] {
        &self.custom
    }

    /// Whether events of this type are accepted.
    ///
    /// # Errors
    /// [`crate::ErrorKind::InvalidEvent`] that names the type and the remedy.
    pub fn check(&self, event_type: EventType<'_>) -> Result<()> {
        match event_type {
            EventType::Known(_) => Ok(()),
            EventType::Custom(name) if self.custom.iter().any(|n| n == name) => Ok(()),
            EventType::Custom(name) => {
                let near = self
                    .custom
                    .iter()
                    .map(|n| (strsim::jaro_winkler(n, name), n))
                    .max_by(|a, b| a.0.total_cmp(&b.0))
                    .filter(|(score, _)| *score > 0.85)
                    .map(|(_, n)| n);
                let e = Error::invalid_event(format!("unknown event type `{name}`")).at("event_type");
                const REGISTER: &str = "register it when the engine is opened (`engine.event_types`)";
                Err(match near.map(String::as_str).or_else(|| nearest_type(name)) {
                    Some(near) => e.remedy(format!("did you mean `{near}`? Otherwise, {REGISTER}")),
                    None => e.remedy(REGISTER),
                })
            }
        }
    }
}

/// A set of event types, as a rule names them: exact names and wildcards.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct EventPattern {
    known: [u64; 4],
    custom: Vec<Cow<'static, str>>,
}

impl EventPattern {
    /// Adds one name or wildcard: `*`, `s3:ObjectCreated:*`, `Configuration:*`, `acme:Scan:*`, or an exact name.
    /// A star stands only at the end, after a colon or alone.
    ///
    /// # Errors
    /// [`crate::ErrorKind::InvalidConfig`] if nothing of the registry fits.
    pub fn add(&mut self, pattern: &str, types: &EventTypes) -> Result<()> {
        let invalid = |e: Error| {
            let error = Error::invalid_config(e.message().to_owned());
            match e.remedy_text() {
                Some(remedy) => error.remedy(remedy),
                None => error,
            }
        };
        let Some(stem) = pattern.strip_suffix('*') else {
            match EventType::parse(pattern).and_then(|t| types.check(t).map(|()| t)).map_err(invalid)? {
                EventType::Known(t) => self.insert(t),
                EventType::Custom(name) => self.custom.push(Cow::Owned(name.to_owned())),
            }
            return Ok(());
        };
        if stem.contains('*') || !(stem.is_empty() || stem.ends_with(':')) {
            return Err(Error::invalid_config(format!(
                "event type `{pattern}` has a star that is not its last segment"
            ))
            .remedy("write the star after the last colon, as in `s3:ObjectCreated:*`, or `*` alone"));
        }
        let mut found = false;
        let mut sweep = |this: &mut Self, stem: &str| {
            for t in KnownType::ALL.iter().filter(|t| t.name().starts_with(stem)) {
                this.insert(*t);
                found = true;
            }
            let by_peer = |alias: &str| alias.starts_with(stem) && !FAMILIES_OF_S3.iter().any(|f| alias.starts_with(f));
            for (_, t) in ALIASES.iter().filter(|(alias, _)| by_peer(alias)) {
                this.insert(*t);
                found = true;
            }
        };
        sweep(self, stem);
        if !stem.is_empty() && !stem.starts_with("s3:") {
            sweep(self, &format!("s3:{stem}"));
        }
        // `s3:BucketCreated:*` is how a peer writes the name that has no last segment.
        if !found && let Some(t) = stem.strip_suffix(':').and_then(KnownType::from_name) {
            self.insert(t);
            found = true;
        }
        if stem.is_empty() || types.custom.iter().any(|n| n.starts_with(stem)) {
            self.custom.push(Cow::Owned(pattern.to_owned()));
            found = true;
        }
        if found {
            Ok(())
        } else {
            Err(invalid(check_custom_name(stem.trim_end_matches(':')).err().unwrap_or_else(|| {
                Error::invalid_event(format!("no event type fits `{pattern}`"))
                    .remedy("register the family's names (`engine.event_types`) or correct the pattern")
            })))
        }
    }

    /// The set of these names and wildcards.
    ///
    /// # Errors
    /// As [`EventPattern::add`].
    pub fn parse<S: AsRef<str>>(patterns: impl IntoIterator<Item = S>, types: &EventTypes) -> Result<EventPattern> {
        let mut set = EventPattern::default();
        for p in patterns {
            set.add(p.as_ref(), types)?;
        }
        Ok(set)
    }

    fn insert(&mut self, t: KnownType) {
        self.known[t as usize / 64] |= 1 << (t as usize % 64);
    }

    /// Whether the set has this type.
    pub fn contains(&self, event_type: EventType<'_>) -> bool {
        match event_type {
            EventType::Known(t) => self.known[t as usize / 64] & (1 << (t as usize % 64)) != 0,
            EventType::Custom(name) => self.custom.iter().any(|p| match p.strip_suffix('*') {
                Some(stem) => name.starts_with(stem),
                None => p == name,
            }),
        }
    }

    /// The known types of the set.
    pub fn known(&self) -> impl Iterator<Item = KnownType> + '_ {
        KnownType::ALL.iter().copied().filter(|t| self.contains(EventType::Known(*t)))
    }

    /// The set's names and wildcards of the host's own types.
    pub fn custom(&self) -> impl Iterator<Item = &str> {
        self.custom.iter().map(|p| &**p)
    }

    /// Whether the set has nothing.
    pub fn is_empty(&self) -> bool {
        self.known == [0; 4] && self.custom.is_empty()
    }

    /// Keeps only the types that `keep` says. A wildcard of the host's own types stands for any one of them.
    pub fn retain(&mut self, keep: impl Fn(EventType<'_>) -> bool) {
        for t in KnownType::ALL.iter().filter(|t| !keep(EventType::Known(**t))) {
            self.known[*t as usize / 64] &= !(1 << (*t as usize % 64));
        }
        self.custom.retain(|name| keep(EventType::Custom(name)));
    }

    /// Adds everything of `other`.
    pub fn union(&mut self, other: &EventPattern) {
        for (a, b) in self.known.iter_mut().zip(other.known) {
            *a |= b;
        }
        self.custom.extend(other.custom.iter().cloned());
    }
}

#[cfg(test)]
mod tests;
