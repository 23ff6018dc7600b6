use super::*;
use crate::error::ErrorKind;

fn set(patterns: &[&str]) -> EventPattern {
    EventPattern::parse(patterns, &EventTypes::default()).expect("valid patterns")
}

fn names(patterns: &[&str]) -> Vec<&'static str> {
    set(patterns).known().map(KnownType::name).collect()
}

/// The numbers are in logs on disks: this list may only grow at its end or in its gaps.
#[test]
fn numbers_are_those_that_logs_hold() {
    let golden = [
        (1, "s3:ObjectCreated:Put"),
        (2, "s3:ObjectCreated:Post"),
        (3, "s3:ObjectCreated:Copy"),
        (4, "s3:ObjectCreated:CompleteMultipartUpload"),
        (5, "s3:ObjectRemoved:Delete"),
        (6, "s3:ObjectRemoved:DeleteMarkerCreated"),
        (7, "s3:ObjectRemoved:DeleteAllVersions"),
        (8, "s3:ObjectRemoved:NoOP"),
        (9, "s3:LifecycleExpiration:Delete"),
        (10, "s3:LifecycleExpiration:DeleteMarkerCreated"),
        (11, "s3:ObjectLifecycle:Expiration:AbortMultipartUpload"),
        (12, "s3:LifecycleTransition"),
        (13, "s3:ObjectTransition:Failed"),
        (14, "s3:IntelligentTiering"),
        (15, "s3:ObjectRestore:Post"),
        (16, "s3:ObjectRestore:Completed"),
        (17, "s3:ObjectRestore:Delete"),
        (18, "s3:ReducedRedundancyLostObject"),
        (19, "s3:Replication:OperationFailedReplication"),
        (20, "s3:Replication:OperationMissedThreshold"),
        (21, "s3:Replication:OperationReplicatedAfterThreshold"),
        (22, "s3:Replication:OperationNotTracked"),
        (23, "s3:Replication:OperationCompletedReplication"),
        (24, "s3:ObjectSynced:Create"),
        (25, "s3:ObjectSynced:Delete"),
        (26, "s3:ObjectSynced:DeletionMarkerCreated"),
        (27, "s3:ObjectTagging:Put"),
        (28, "s3:ObjectTagging:Delete"),
        (29, "s3:ObjectAcl:Put"),
        (30, "s3:ObjectAnnotation:Put"),
        (31, "s3:ObjectAnnotation:Delete"),
        (32, "s3:ObjectMetadata:Put"),
        (33, "s3:ObjectRetention:Put"),
        (34, "s3:ObjectLegalHold:Put"),
        (35, "s3:ObjectRenamed"),
        (40, "s3:ObjectAccessed:Get"),
        (41, "s3:ObjectAccessed:Head"),
        (42, "s3:ObjectAccessed:GetRetention"),
        (43, "s3:ObjectAccessed:GetLegalHold"),
        (44, "s3:ObjectAccessed:Attributes"),
        (45, "s3:BucketAccessed:List"),
        (50, "Access:Denied:Read"),
        (51, "Access:Denied:Write"),
        (52, "Access:Denied:Delete"),
        (53, "Access:Denied:List"),
        (54, "Access:Denied:Admin"),
        (60, "s3:BucketCreated"),
        (61, "s3:BucketRemoved"),
        (62, "s3:Scanner:ManyVersions"),
        (63, "s3:Scanner:LargeVersions"),
        (64, "s3:Scanner:BigPrefix"),
        (70, "Configuration:Policy:Put"),
        (71, "Configuration:Policy:Delete"),
        (72, "Configuration:Acl:Put"),
        (73, "Configuration:Acl:Delete"),
        (74, "Configuration:Lifecycle:Put"),
        (75, "Configuration:Lifecycle:Delete"),
        (76, "Configuration:Replication:Put"),
        (77, "Configuration:Replication:Delete"),
        (78, "Configuration:Notification:Put"),
        (79, "Configuration:Notification:Delete"),
        (80, "Configuration:Encryption:Put"),
        (81, "Configuration:Encryption:Delete"),
        (82, "Configuration:Versioning:Put"),
        (83, "Configuration:Versioning:Delete"),
        (90, "System:Health:Ok"),
        (91, "System:Health:Degraded"),
        (92, "System:Health:Failed"),
        (95, "System:Capacity:Normal"),
        (96, "System:Capacity:Warning"),
        (97, "System:Capacity:Critical"),
        (100, "s3:TestEvent"),
        (101, "System:Destination:Pending"),
        (102, "System:Destination:Verified"),
        (103, "System:Destination:Suspended"),
        (104, "System:Destination:Disabled"),
        (105, "System:Destination:Resumed"),
        (106, "System:Destination:Failing"),
        (107, "System:Destination:BreakerOpened"),
    ];
    let now: Vec<(u16, &str)> = KnownType::ALL.iter().map(|t| (*t as u16, t.name())).collect();
    assert_eq!(now, golden);
}

#[test]
fn numbers_and_names_are_unique_and_lead_back() {
    for (i, t) in KnownType::ALL.iter().enumerate() {
        assert_ne!(*t as u16, 0, "0 means a type by name");
        assert!((*t as usize) < 256, "the set of a pattern has 256 bits");
        assert_eq!(KnownType::from_code(*t as u16), Some(*t));
        assert_eq!(KnownType::from_name(t.name()), Some(*t));
        assert_eq!(KnownType::from_name(t.record_name()), Some(*t));
        assert!(!t.record_name().starts_with("s3:"));
        for other in &KnownType::ALL[i + 1..] {
            assert_ne!(t.name(), other.name());
            assert_ne!(*t as u16, *other as u16);
        }
    }
    assert_eq!(KnownType::from_code(0), None);
    assert_eq!(KnownType::from_code(36), None);
    assert_eq!(KnownType::from_code(u16::MAX), None);
}

#[test]
fn aliases_are_understood_and_shadow_no_name() {
    for (alias, t) in ALIASES {
        assert_eq!(KnownType::from_name(alias), Some(*t), "{alias}");
        assert_eq!(KnownType::from_name(&alias["s3:".len()..]), Some(*t), "{alias}");
        assert!(KnownType::ALL.iter().all(|k| k.name() != *alias), "{alias}");
        assert_eq!(names(&[alias]), [t.name()]);
    }
}

/// A schema is an object of members with a type each, and types that promise data beyond the event say so.
#[test]
fn schemas_are_written_in_one_form() {
    for t in KnownType::ALL {
        let Some(schema) = t.data_schema() else { continue };
        let inner = schema.strip_prefix('{').and_then(|s| s.strip_suffix('}')).expect("an object");
        for member in inner.split(", ") {
            let (name, kind) = member.split_once(": ").expect(member);
            assert!(name.len() > 2 && name.starts_with('"') && name.ends_with('"'), "{member}");
            assert!(["string", "number", "any"].contains(&kind), "{member}");
        }
    }
    for t in KnownType::ALL {
        let family = ["s3:Replication:", "s3:Scanner:", "Access:", "Configuration:", "System:"];
        let with_data = family.iter().any(|f| t.name().starts_with(f))
            || matches!(
                t,
                KnownType::LifecycleTransition
                    | KnownType::LifecycleTransitionFailed
                    | KnownType::IntelligentTiering
                    | KnownType::ObjectRestoreCompleted
                    | KnownType::ObjectRenamed
            );
        assert_eq!(t.data_schema().is_some(), with_data, "{}", t.name());
    }
}

#[test]
fn scopes_follow_the_family() {
    for t in KnownType::ALL {
        let expected = match t.name().split(':').next() {
            Some("System") => Scope::System,
            Some("Access" | "Configuration") => Scope::Bucket,
            _ if ["s3:Bucket", "s3:TestEvent"].iter().any(|f| t.name().starts_with(f)) => Scope::Bucket,
            _ => Scope::Object,
        };
        assert_eq!(t.scope(), expected, "{}", t.name());
    }
}

#[test]
fn wildcards_reach_their_family_only() {
    assert_eq!(
        names(&["s3:ObjectCreated:*"]),
        [
            "s3:ObjectCreated:Put",
            "s3:ObjectCreated:Post",
            "s3:ObjectCreated:Copy",
            "s3:ObjectCreated:CompleteMultipartUpload"
        ]
    );
    assert_eq!(
        names(&["s3:ObjectRemoved:*"]),
        [
            "s3:ObjectRemoved:Delete",
            "s3:ObjectRemoved:DeleteMarkerCreated",
            "s3:ObjectRemoved:DeleteAllVersions",
            "s3:ObjectRemoved:NoOP"
        ]
    );
    assert_eq!(
        names(&["s3:LifecycleExpiration:*"]),
        ["s3:LifecycleExpiration:Delete", "s3:LifecycleExpiration:DeleteMarkerCreated"]
    );
    assert_eq!(names(&["s3:Replication:*"]).len(), 5);
    assert!(!set(&["s3:Replication:*"]).contains(KnownType::ReplicaCreated.into()));
    assert_eq!(names(&["Access:Denied:*"]).len(), 5);
    assert_eq!(names(&["Configuration:*"]).len(), 14);
    assert_eq!(names(&["*"]).len(), KnownType::ALL.len());
    assert!(!set(&["s3:*"]).contains(KnownType::SystemHealthOk.into()));
    assert_eq!(names(&["ObjectCreated:*"]), names(&["s3:ObjectCreated:*"]));
}

#[test]
fn wildcards_of_peers_mean_what_they_mean_there() {
    assert_eq!(names(&["s3:BucketCreated:*"]), ["s3:BucketCreated"]);
    assert_eq!(names(&["s3:LifecycleTransition:*"]), ["s3:LifecycleTransition"]);
    assert_eq!(names(&["s3:ObjectTransition:*"]), ["s3:LifecycleTransition", "s3:ObjectTransition:Failed"]);
    assert_eq!(
        names(&["s3:ObjectLifecycle:Expiration:*"]),
        [
            "s3:LifecycleExpiration:Delete",
            "s3:LifecycleExpiration:DeleteMarkerCreated",
            "s3:ObjectLifecycle:Expiration:AbortMultipartUpload"
        ]
    );
    assert_eq!(names(&["s3:ObjectLifecycle:Transition:*"]), ["s3:LifecycleTransition"]);
    assert_eq!(names(&["s3:LifecycleDelMarkerExpiration:*"]), ["s3:LifecycleExpiration:Delete"]);
}

#[test]
fn wrong_patterns_are_refused() {
    let types = EventTypes::default();
    for wrong in
        ["", "s3:", "s3:Object*", "s3:*:Put", "**", "s3:ObjectCreated:**", "s3:ObjectMade:*", "acme:*", "acme:Scan"]
    {
        let e = EventPattern::default().add(wrong, &types).expect_err(wrong);
        assert_eq!(e.kind(), ErrorKind::InvalidConfig, "{wrong}");
        assert!(e.remedy_text().is_some(), "{wrong}");
    }
}

#[test]
fn near_names_are_suggested() {
    for (wrong, near) in [
        ("s3:ObjectCreated:Putt", "s3:ObjectCreated:Put"),
        ("s3:ObjectCreate:Put", "s3:ObjectCreated:Put"),
        ("s3:objectremoved:delete", "s3:ObjectRemoved:Delete"),
        ("Configuration:Policy:Puts", "Configuration:Policy:Put"),
        ("System:Health:OK", "System:Health:Ok"),
    ] {
        let e = EventType::parse(wrong).expect_err(wrong);
        assert_eq!(e.kind(), ErrorKind::InvalidEvent);
        assert_eq!(e.remedy_text(), Some(&*format!("did you mean `{near}`?")), "{wrong}");
    }
    let e = EventPattern::default().add("ObjectCreated:Putt", &EventTypes::default()).expect_err("a typo");
    assert!(e.remedy_text().is_some_and(|r| r.contains("`s3:ObjectCreated:Put`")), "{e}");
}

#[test]
fn reserved_families_are_not_for_hosts() {
    for name in
        ["s3:Mine", "S3:Mine", "Access:Mine", "access:Mine", "Configuration:Mine:Put", "System:Mine", "tidewire:Mine"]
    {
        assert!(EventType::parse(name).is_err(), "{name}");
        assert!(EventTypes::with_custom([name]).is_err(), "{name}");
    }
}

#[test]
fn names_of_hosts() {
    let long = format!("acme:{}", "x".repeat(TYPE_NAME_BYTES_MAX - 5));
    for good in ["acme:Scan", "acme:Scan:Infected", "a-b.c_d:E:F:G", &long] {
        assert_eq!(EventType::parse(good).ok(), Some(EventType::Custom(good)));
        assert!(EventTypes::with_custom([good]).is_ok());
    }
    let longer = format!("{long}x");
    for bad in
        ["", "acme", "acme:", ":Scan", "acme::Scan", "acme:Sc an", "acme:Sc*n", "acme:é", "a:b:c:d:e", "a\n:b", &longer]
    {
        assert_eq!(EventType::parse(bad).map_err(|e| e.kind()), Err(ErrorKind::InvalidEvent), "{bad}");
    }
}

#[test]
fn only_registered_names_pass_the_check() {
    let types = EventTypes::with_custom(["acme:Scan:Infected", "acme:Scan:Clean", "acme:Scan:Clean"]).expect("legal");
    assert_eq!(types.custom().len(), 2);
    assert!(types.check(KnownType::ObjectAclPut.into()).is_ok());
    assert!(types.check(EventType::Custom("acme:Scan:Clean")).is_ok());
    let e = types.check(EventType::Custom("acme:Scan:Cleaned")).expect_err("not registered");
    assert!(e.remedy_text().is_some_and(|r| r.starts_with("did you mean `acme:Scan:Clean`?")), "{e}");
    let e = types.check(EventType::Custom("zzz:Other")).expect_err("not registered");
    assert!(e.remedy_text().is_some_and(|r| r.starts_with("register it")), "{e}");
}

#[test]
fn patterns_with_names_of_hosts() {
    let types = EventTypes::with_custom(["acme:Scan:Infected", "acme:Scan:Clean", "other:Thing"]).expect("legal");
    let family = EventPattern::parse(["acme:Scan:*"], &types).expect("registered");
    assert!(family.contains(EventType::Custom("acme:Scan:Clean")));
    assert!(!family.contains(EventType::Custom("other:Thing")));
    assert!(!family.contains(KnownType::ObjectCreatedPut.into()));
    let exact = EventPattern::parse(["other:Thing"], &types).expect("registered");
    assert!(exact.contains(EventType::Custom("other:Thing")));
    assert!(!exact.contains(EventType::Custom("other:Thing:More")));
    let all = EventPattern::parse(["*"], &types).expect("always fits");
    assert!(all.contains(EventType::Custom("other:Thing")) && all.contains(KnownType::TestEvent.into()));

    let mut union = exact.clone();
    union.union(&family);
    union.union(&set(&["s3:ObjectAcl:Put"]));
    assert!(union.contains(EventType::Custom("other:Thing")));
    assert!(union.contains(EventType::Custom("acme:Scan:Infected")));
    assert!(union.contains(KnownType::ObjectAclPut.into()));
    assert!(EventPattern::default().is_empty() && !union.is_empty() && !exact.is_empty());
}
