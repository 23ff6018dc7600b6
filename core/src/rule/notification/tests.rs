use std::collections::HashMap;

use super::*;
use crate::event::{EventPattern, EventType};

fn read(text: &str, options: &NotificationOptions) -> Result<Vec<Rule>> {
    let aliases = HashMap::from([("arn:aws:sns:us-east-1:1:t".to_owned(), "audit".to_owned())]);
    let arns = Arns::new(["images", "audit", "bus"], aliases).unwrap();
    let types = EventTypes::with_custom(["acme:Scan:Clean"]).unwrap();
    Notification { bucket: "photos", text, name: "n", format: None, options, arns: &arns, types: &types }.rules()
}

fn rules(text: &str) -> Vec<Rule> {
    read(text, &NotificationOptions::default()).unwrap()
}

#[track_caller]
fn refused(text: &str, parts: &[&str]) {
    refused_with(text, &NotificationOptions::default(), parts);
}

#[track_caller]
fn refused_with(text: &str, options: &NotificationOptions, parts: &[&str]) {
    let e = read(text, options).unwrap_err();
    assert_eq!(e.kind(), crate::ErrorKind::InvalidConfig);
    let shown = e.to_string();
    assert!(e.remedy_text().is_some(), "{shown}");
    for part in parts {
        assert!(shown.contains(part), "`{part}` is not in: {shown}");
    }
}

const XML: &str = r#"<?xml version="1.0" encoding="UTF-8"?>
<NotificationConfiguration xmlns="http://s3.amazonaws.com/doc/2006-03-01/">
  <!-- thumbnails -->
  <QueueConfiguration>
    <Id>thumbs</Id>
    <Queue>arn:tidewire:events:::images</Queue>
    <Event>s3:ObjectCreated:Put</Event>
    <Event>s3:ObjectRemoved:*</Event>
    <Filter><S3Key>
      <FilterRule><Name>Prefix</Name><Value>in &amp; out/</Value></FilterRule>
      <FilterRule><Name>SUFFIX</Name><Value>.jpg</Value></FilterRule>
    </S3Key></Filter>
  </QueueConfiguration>
  <TopicConfiguration>
    <Topic>arn:aws:sns:us-east-1:1:t</Topic>
    <Event>s3:ObjectTagging:*</Event>
  </TopicConfiguration>
  <CloudFunctionConfiguration>
    <Id>f</Id>
    <CloudFunction>arn:minio:sqs::bus:webhook</CloudFunction>
    <Event>ObjectRestore:Completed</Event>
  </CloudFunctionConfiguration>
</NotificationConfiguration>
"#;

const JSON: &str = r#"{
  "TopicConfigurations": [
    {"TopicArn": "arn:aws:sns:us-east-1:1:t", "Events": ["s3:ObjectTagging:*"]}
  ],
  "QueueConfigurations": [
    {
      "Id": "thumbs",
      "QueueArn": "arn:tidewire:events:::images",
      "Events": ["s3:ObjectCreated:Put", "s3:ObjectRemoved:*"],
      "Filter": {"Key": {"FilterRules": [
        {"Name": "prefix", "Value": "in \u0026 out/"},
        {"Name": "Suffix", "Value": ".jpg"}
      ]}}
    }
  ],
  "LambdaFunctionConfigurations": [
    {"Id": "f", "LambdaFunctionArn": "arn:minio:sqs::bus:webhook", "Events": ["ObjectRestore:Completed"]}
  ]
}"#;

#[test]
fn xml_becomes_rules() {
    let r = rules(XML);
    assert_eq!(r.len(), 3);
    assert_eq!((r[0].id.as_str(), r[0].bucket.as_deref()), ("thumbs", Some("photos")));
    assert_eq!(r[0].destinations, ["images"]);
    assert_eq!(r[0].filter, Filter::new("in & out/", ".jpg"));
    assert!(r[0].events.contains(EventType::Known(KnownType::ObjectRemovedDelete)));
    assert!(!r[0].events.contains(EventType::Known(KnownType::LifecycleExpirationDelete)));
    assert_eq!((r[1].destinations[0].as_str(), r[2].destinations[0].as_str()), ("audit", "bus"));
    assert!(r[2].events.contains(EventType::Known(KnownType::ObjectRestoreCompleted)));
}

#[test]
fn json_becomes_the_same_rules() {
    let mut from_xml = rules(XML);
    let mut from_json = rules(JSON);
    from_xml.sort_by(|a, b| a.id.cmp(&b.id));
    from_json.sort_by(|a, b| a.id.cmp(&b.id));
    assert_eq!(from_xml, from_json);
}

#[test]
fn an_empty_document_has_no_rules() {
    for text in [
        "<NotificationConfiguration/>",
        "<NotificationConfiguration xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\"></NotificationConfiguration>",
        "<?xml version=\"1.0\"?>\n<NotificationConfiguration>\n</NotificationConfiguration>\n",
        "{}",
        "{\"QueueConfigurations\": []}",
        "\u{feff}<NotificationConfiguration/>",
    ] {
        assert!(rules(text).is_empty(), "{text}");
    }
    // No document is not an empty one: more likely a write that was cut off.
    refused("", &["nothing in it", "<NotificationConfiguration/>"]);
    refused(" \n", &["nothing in it"]);
    refused("QueueConfigurations:", &["begins with `Q`"]);
}

#[test]
fn made_ids_are_stable_and_different() {
    let queue = |event: &str| {
        format!(
            "<QueueConfiguration><Queue>arn:tidewire:events:::images</Queue><Event>{event}</Event></QueueConfiguration>"
        )
    };
    let doc = |parts: &[String]| format!("<NotificationConfiguration>{}</NotificationConfiguration>", parts.concat());
    let (put, copy) = (queue("s3:ObjectCreated:Put"), queue("s3:ObjectCreated:Copy"));
    let first = rules(&doc(&[put.clone(), copy.clone()]));
    let second = rules(&doc(&[copy, put.clone()]));
    assert!(first[0].id.starts_with("tidewire-"));
    assert_eq!((&first[0].id, &first[1].id), (&second[1].id, &second[0].id));
    assert_ne!(first[0].id, first[1].id);
    // The same one twice is accepted; events are told once.
    let twice = rules(&doc(&[put.clone(), put]));
    assert_eq!(twice[1].id, format!("{}-2", twice[0].id));
    // An empty id is no id.
    let json = r#"{"QueueConfigurations": [{"Id": "", "QueueArn": "arn:tidewire:events:::images", "Events": ["s3:ObjectCreated:Put"]}]}"#;
    assert_eq!(rules(json)[0].id, first[0].id);
}

fn xml_filter(rules: &str) -> String {
    format!(
        "<NotificationConfiguration>\n<QueueConfiguration><Id>q</Id>\n<Queue>arn:tidewire:events:::images</Queue>\n\
         <Event>s3:ObjectCreated:*</Event>\n<Filter><S3Key>\n{rules}</S3Key></Filter></QueueConfiguration>\n\
         </NotificationConfiguration>"
    )
}

fn filter_rule(name: &str, value: &str) -> String {
    format!("<FilterRule><Name>{name}</Name><Value>{value}</Value></FilterRule>\n")
}

#[test]
fn empty_filters_match_all() {
    for filter in ["", &filter_rule("suffix", ""), "<FilterRule><Name>prefix</Name><Value/></FilterRule>"] {
        assert_eq!(rules(&xml_filter(filter))[0].filter, Filter::default());
    }
    let json = r#"{"QueueConfigurations": [{"QueueArn": "arn:tidewire:events:::images", "Events": ["s3:ObjectCreated:*"], "Filter": {"Key": {"FilterRules": []}}}]}"#;
    assert_eq!(rules(json)[0].filter, Filter::default());
}

#[test]
fn filter_values_are_taken_as_they_are() {
    let r =
        rules(&xml_filter(&(filter_rule("prefix", " a+b%2F*?/") + &filter_rule("suffix", "<![CDATA[<é>]]>&#x20;"))));
    assert_eq!(r[0].filter, Filter::new(" a+b%2F*?/", "<é> "));
}

#[test]
fn encoded_filter_values_are_decoded_on_request() {
    let options = NotificationOptions { filter_values: FilterValues::Encoded, ..Default::default() };
    let doc = xml_filter(&(filter_rule("prefix", "my+photos/schemaVersion%3D1/") + &filter_rule("suffix", "%FF")));
    let r = read(&doc, &options).unwrap();
    assert_eq!(r[0].filter, Filter::new("my photos/schemaVersion=1/", *b"\xff"));
    refused_with(&xml_filter(&filter_rule("prefix", "100%")), &options, &["n:6:39", "configuration `q`", "raw"]);
}

#[test]
fn filter_rules_are_one_prefix_and_one_suffix() {
    let twice = filter_rule("prefix", "a") + &filter_rule("Prefix", "b");
    refused(&xml_filter(&twice), &["n:7:19", "`photos`", "configuration `q`", "given twice"]);
    refused(&xml_filter(&filter_rule("prefx", "a")), &["n:6:19", "`prefx`", "did you mean `prefix`?"]);
    refused(&xml_filter(&filter_rule("regex", "a")), &["`regex`", "use `prefix` or `suffix`"]);
    refused(&xml_filter(&filter_rule("suffix", &"a".repeat(1025))), &["the suffix has 1025 bytes"]);
    refused(&xml_filter("<FilterRule><Name>prefix</Name></FilterRule>"), &["n:6:1", "lacks"]);
    let metadata = xml_filter("").replace("S3Key", "S3Metadata");
    refused(&metadata, &["unknown element `S3Metadata`", "not understood"]);
}

#[test]
fn xml_faults_are_told_with_their_place() {
    let doc = |inner: &str| format!("<NotificationConfiguration>\n  {inner}\n</NotificationConfiguration>");
    let queue = |inner: &str| doc(&format!("<QueueConfiguration>\n{inner}</QueueConfiguration>"));
    let arn = "<Queue>arn:tidewire:events:::images</Queue>";
    let event = "<Event>s3:ObjectCreated:*</Event>";
    refused(&doc("<QueueConfigration/>"), &["n:2:3", "did you mean `QueueConfiguration`?"]);
    refused(&doc("text"), &["n:2:3", "has text in it"]);
    refused(&queue(&format!("{arn}<Evnt>x</Evnt>")), &["n:3:44", "`Evnt`", "did you mean `Event`?"]);
    refused(&queue(&format!("<Topic>x</Topic>{event}")), &["n:3:1", "unknown element `Topic`"]);
    refused(&queue(event), &["n:2:3", "has no `Queue`"]);
    refused(&queue(arn), &["n:2:3", "names no event"]);
    refused(&queue(&format!("{arn}{arn}{event}")), &["n:3:44", "given twice"]);
    refused(
        &queue(&format!("{arn}\n<Event>s3:ObjectCreated:Putt</Event>")),
        &["n:4:8", "did you mean `s3:ObjectCreated:Put`?"],
    );
    refused(
        &queue(&format!("<Id>q</Id><Queue> arn:tidewire:events:::imags</Queue>{event}")),
        &["n:3:19", "bucket `photos`, configuration `q`", "arn:tidewire:events:::imags", "`images`"],
    );
    refused(&queue(&format!("{arn}{event}<Event><b/></Event>")), &["unknown element `b`"]);
    refused(&doc("<EventBridgeConfiguration><x/></EventBridgeConfiguration>"), &["unknown element `x`"]);
    refused(&doc("<QueueConfiguration arn=\"x\"/>"), &["n:2:3", "attribute `arn`"]);
    refused("<Configuration/>", &["n:1:1", "`Configuration`"]);
    refused("<NotificationConfiguration/><x/>", &["n:1:29", "follows the end"]);
    refused("<NotificationConfiguration/>x", &["outside"]);
    refused("<NotificationConfiguration>\n<QueueConfiguration>\n", &["n:2:1", "not closed"]);
    refused("<NotificationConfiguration>\n</Notification>", &["n:2:", "not well-formed"]);
    refused("<NotificationConfiguration>\n<a", &["n:2:", "not well-formed"]);
    refused("<!DOCTYPE x [<!ENTITY a 'b'>]>\n<NotificationConfiguration/>", &["DOCTYPE"]);
    refused(&queue(&format!("{arn}<Event>&evil;</Event>")), &["n:3:51", "entity"]);
    refused(&"<a>".repeat(20), &["deeper"]);
    refused("<!-- only this -->", &["no element"]);
}

#[test]
fn json_faults_are_told_with_their_place() {
    refused("{\n  \"QueueConfigration\": []}", &["n:2:3", "did you mean `QueueConfigurations`?"]);
    refused("{\n  \"QueueConfigurations\": {}}", &["n:2:", "expected a sequence"]);
    refused("{\n  \"QueueConfigurations\": [],\n", &["n:3:1", "not the JSON"]);
    refused("{} x", &["n:1:4"]);
    let queue = |inner: &str| format!("{{\"QueueConfigurations\": [\n {{{inner}}}\n]}}");
    let arn = "\"QueueArn\": \"arn:tidewire:events:::images\"";
    let events = "\"Events\": [\"s3:ObjectCreated:*\"]";
    refused(&queue(&format!("{arn}, \"Evnts\": []")), &["n:2:47", "did you mean `Events`?"]);
    refused(&queue(&format!("\"TopicArn\": \"x\", {events}")), &["n:2:3", "unknown field `TopicArn`", "`QueueArn`"]);
    refused(&queue(events), &["n:2:2", "missing field `QueueArn`"]);
    refused(&queue(arn), &["n:2:2", "missing field `Events`"]);
    refused(&queue(&format!("{arn}, \"Events\": []")), &["n:2:2", "names no event"]);
    refused(&queue(&format!("{arn}, \"Events\": [\n3]")), &["n:3:1", "not a string"]);
    refused(&queue(&format!("{arn}, \"Events\": [\n\"s3:ObjectCreatd:*\"]")), &["n:3:1", "s3:ObjectCreatd"]);
    refused(&queue(&format!("{arn}, {events}, {events}")), &["n:2:", "duplicate field"]);
    refused(
        &queue(&format!("\"Id\": \"q\", {events},\n\"QueueArn\": \"arn:tidewire:events:::imags\"")),
        &["n:3:13", "bucket `photos`, configuration `q`", "`images`"],
    );
    let filter =
        |rules: &str| queue(&format!("{arn}, {events},\n\"Filter\": {{\"Key\": {{\"FilterRules\": [{rules}]}}}}"));
    refused(&filter("{\"Name\": \"prefix\"}"), &["n:3:11", "missing field `Value`"]);
    refused(&filter("{\"Name\": \"prefix\", \"Value\": 3}"), &["n:3:64", "not a string"]);
    refused(&filter("{\"Name\": \"infix\", \"Value\": \"x\"}"), &["n:3:45", "`infix`"]);
    refused("{\"EventBridgeConfiguration\": {\"x\": 1}}", &["unknown field `x`"]);
}

#[test]
fn ids_come_once_and_are_printable() {
    let entry = |id: &str| {
        format!(
            "<QueueConfiguration><Id>{id}</Id><Queue>arn:tidewire:events:::images</Queue>\
             <Event>s3:ObjectCreated:*</Event></QueueConfiguration>\n"
        )
    };
    let doc =
        |a: &str, b: &str| format!("<NotificationConfiguration>\n{}{}</NotificationConfiguration>", entry(a), entry(b));
    refused(&doc("a", "a"), &["n:3:25", "same id"]);
    refused(&doc("a", &"a".repeat(256)), &["n:3:25", "printable"]);
    refused(&doc("a", "x&#7;y"), &["n:3:", "printable"]);
    assert_eq!(rules(&doc("a", " b ")).len(), 2);
}

#[test]
fn event_bridge_needs_a_destination() {
    let text = "<NotificationConfiguration>\n<EventBridgeConfiguration></EventBridgeConfiguration></NotificationConfiguration>";
    refused(text, &["n:2:1", "event_bridge"]);
    let to = |name: &str| NotificationOptions { event_bridge: Some(name.to_owned()), ..Default::default() };
    refused_with(text, &to("buss"), &["did you mean `bus`?"]);
    for text in [text, "{\"EventBridgeConfiguration\": {}}"] {
        let r = read(text, &to("bus")).unwrap();
        assert_eq!((r.len(), r[0].id.as_str(), r[0].destinations[0].as_str()), (1, "EventBridge", "bus"));
        assert!(r[0].events.contains(EventType::Known(KnownType::LifecycleExpirationDelete)));
        assert!(!r[0].events.contains(EventType::Known(KnownType::ObjectAccessedGet)));
    }
}

fn two(a: (&str, &str, &str), b: (&str, &str, &str)) -> String {
    let one = |id: &str, (event, prefix, suffix): (&str, &str, &str)| {
        format!(
            "<QueueConfiguration><Id>{id}</Id><Queue>arn:tidewire:events:::images</Queue><Event>{event}</Event>\
             <Filter><S3Key>{}{}</S3Key></Filter></QueueConfiguration>\n",
            filter_rule("prefix", prefix),
            filter_rule("suffix", suffix)
        )
    };
    format!("<NotificationConfiguration>\n{}{}</NotificationConfiguration>", one("first", a), one("second", b))
}

#[test]
fn overlap_is_refused_in_the_strict_mode_as_aws_does() {
    let strict = NotificationOptions { overlap: Overlap::StrictAws, ..Default::default() };
    let put = "s3:ObjectCreated:Put";
    for (a, b) in [
        ((put, "", ""), (put, "", "")),
        ((put, "images", ""), (put, "images/in", "")),
        ((put, "", "jpg"), (put, "", "pg")),
        ((put, "images", ""), (put, "", ".jpg")),
        (("s3:ObjectCreated:*", "a", ""), (put, "ab", ".jpg")),
        (("acme:*", "", ""), ("acme:Scan:Clean", "", "")),
    ] {
        refused_with(&two(a, b), &strict, &["n:5:1", "ambiguous", "`first` and `second`", "event `"]);
        // The other modes take them.
        assert!(!rules(&two(a, b))[1].repeat);
        let all = NotificationOptions { overlap: Overlap::AllowAll, ..Default::default() };
        assert!(read(&two(a, b), &all).unwrap()[1].repeat);
    }
    for (a, b) in [
        ((put, "images/", ""), (put, "logs/", "")),
        ((put, "", ".jpg"), (put, "", ".png")),
        ((put, "a", ".jpg"), (put, "a", ".png")),
        ((put, "", ""), ("s3:ObjectCreated:Copy", "", "")),
        // Lifecycle is not part of removal.
        (("s3:ObjectRemoved:*", "", ""), ("s3:LifecycleExpiration:*", "", "")),
    ] {
        assert_eq!(read(&two(a, b), &strict).unwrap().len(), 2);
    }
    // EventBridge is apart from the others.
    let bridge = NotificationOptions { event_bridge: Some("bus".to_owned()), ..strict };
    let text = two((put, "", "a"), (put, "", "b"))
        .replace("</NotificationConfiguration>", "<EventBridgeConfiguration/></NotificationConfiguration>");
    assert_eq!(read(&text, &bridge).unwrap().len(), 3);
}

#[test]
fn the_shared_part_is_named() {
    let strict = NotificationOptions { overlap: Overlap::StrictAws, ..Default::default() };
    let text = two(("s3:ObjectCreated:*", "images/", ""), ("s3:ObjectCreated:Copy", "images/in/", ".jpg"));
    refused_with(
        &text,
        &strict,
        &["`s3:ObjectCreated:Copy`", "prefixes `images/` and `images/in/`", "suffixes none and `.jpg`"],
    );
}

#[test]
fn a_document_has_a_largest_size() {
    refused(&format!("<NotificationConfiguration>{}</NotificationConfiguration>", " ".repeat(4 << 20)), &["more than"]);
}

fn ceph() -> NotificationOptions {
    NotificationOptions { extensions: Extensions::Ceph, ..Default::default() }
}

const CEPH_XML: &str = r#"<NotificationConfiguration><TopicConfiguration>
<Id>q</Id><Topic>arn:tidewire:events:::images</Topic><Event>s3:ObjectCreated:*</Event>
<Filter>
  <S3Key>
    <FilterRule><Name>prefix</Name><Value>in/</Value></FilterRule>
    <FilterRule><Name>suffix</Name><Value>.tmp</Value><Type>OUT</Type></FilterRule>
    <FilterRule><Name>regex</Name><Value>in/[a-z]+\.(jpg|tmp)</Value><Type>IN</Type></FilterRule>
  </S3Key>
  <S3Metadata>
    <FilterRule><Name>x-amz-meta-Colour</Name><Value>red</Value></FilterRule>
  </S3Metadata>
  <S3Tags>
    <FilterRule><Name>env</Name><Value>prod</Value></FilterRule>
    <FilterRule><Name>draft</Name><Value>yes</Value><Type>OUT</Type></FilterRule>
  </S3Tags>
</Filter></TopicConfiguration></NotificationConfiguration>"#;

const CEPH_JSON: &str = r#"{"TopicConfigurations": [{"Id": "q", "TopicArn": "arn:tidewire:events:::images",
  "Events": ["s3:ObjectCreated:*"], "Filter": {
    "Key": {"FilterRules": [{"Name": "prefix", "Value": "in/"}, {"Name": "suffix", "Value": ".tmp", "Type": "OUT"},
      {"Name": "regex", "Value": "in/[a-z]+\\.(jpg|tmp)"}]},
    "Metadata": {"FilterRules": [{"Name": "x-amz-meta-colour", "Value": "red"}]},
    "Tags": {"FilterRules": [{"Name": "env", "Value": "prod"}, {"Name": "draft", "Value": "yes", "Type": "OUT"}]}}}]}"#;

#[test]
fn the_filters_of_ceph_must_all_hold() {
    let rules = read(CEPH_XML, &ceph()).unwrap();
    assert_eq!(rules, read(CEPH_JSON, &ceph()).unwrap());
    let wants = |key: &str, metadata: &[(&str, &str)], tags: &[(&str, &str)]| {
        let mut e = crate::event::Event::new(KnownType::ObjectCreatedPut.into(), "photos", key.as_bytes());
        (e.metadata, e.tags) = (metadata, tags);
        let bytes = crate::event::frame::encode_to_vec(&e, 1);
        rules[0].filter.matches_frame(crate::event::FrameView::parse(&bytes).unwrap())
    };
    let (red, prod) = ([("colour", "red")], [("env", "prod")]);
    assert!(wants("in/a.jpg", &red, &prod));
    assert!(wants("in/a.jpg", &[("colour", "red"), ("more", "x")], &[("env", "prod"), ("draft", "no")]));
    assert!(!wants("in/a.tmp", &red, &prod), "the suffix is to be another");
    assert!(!wants("in/a.jpgx", &red, &prod), "the expression fits the whole key");
    assert!(!wants("in/a.jpg", &[("colour", "blue")], &prod) && !wants("in/a.jpg", &[], &prod));
    assert!(!wants("in/a.jpg", &red, &[]) && !wants("in/a.jpg", &red, &[("ENV", "prod")]));
    assert!(!wants("in/a.jpg", &red, &[("env", "prod"), ("draft", "yes")]));
    // An empty expression is none.
    let empty = read(&xml_filter(&filter_rule("regex", "")), &ceph()).unwrap();
    assert_eq!(empty[0].filter, Filter::default());
}

#[test]
fn what_ceph_has_more_is_refused_unless_it_is_allowed() {
    refused(CEPH_XML, &["n:6:55", "unknown element `Type`"]);
    refused(CEPH_JSON, &["unknown field `Type`"]);
    let tags = xml_filter("").replace("S3Key", "S3Tags");
    refused(&tags, &["n:5:9", "unknown element `S3Tags`", "extensions = \"ceph\""]);
    refused(&xml_filter(&filter_rule("regex", "a")), &["`regex`", "extensions = \"ceph\""]);
    refused_with(&tags.replace("Tags", "Tag"), &ceph(), &["did you mean `S3Tags`?"]);
    refused_with(&xml_filter(&filter_rule("regex", "(")), &ceph(), &["n:6:38", "no regular expression"]);
    refused_with(&xml_filter(&filter_rule("regx", "a")), &ceph(), &["did you mean `regex`?"]);
    let twice = tags.replace("<S3Tags>\n", &format!("<S3Tags>\n{0}{0}", filter_rule("a", "b")));
    refused_with(&twice, &ceph(), &["n:7:19", "`a` is given twice"]);
    let sense = xml_filter("<FilterRule><Name>prefix</Name><Value>a</Value><Type>NOT</Type></FilterRule>");
    refused_with(&sense, &ceph(), &["n:6:54", "`NOT`", "OUT"]);
    let lists = xml_filter("</S3Key><S3Key>");
    refused_with(&lists, &ceph(), &["`S3Key` is given twice"]);
}

/// Two rules overlap if there is a key that both want: it may begin with the longer prefix and end with the longer suffix
/// if the shorter ones are parts of them, and else there is none. Every pair of rules over two letters with prefixes and
/// suffixes of up to three is compared with every key of up to six, which is as long as it takes.
#[test]
fn rules_overlap_exactly_if_some_key_is_wanted_by_both() {
    let texts = |len: usize| {
        (0..1 << len).map(move |n| (0..len).map(|i| if n >> i & 1 == 0 { 'a' } else { 'b' }).collect::<String>())
    };
    let affixes: Vec<String> = (0..=3).flat_map(texts).collect();
    let keys: Vec<String> = (1..=6).flat_map(texts).collect();
    assert_eq!((affixes.len(), keys.len()), (15, 126));
    let events = EventPattern::parse(["s3:ObjectCreated:Put"], &EventTypes::default()).unwrap();
    let mut rules: Vec<(LocatedRule, u128)> = Vec::new();
    for prefix in &affixes {
        for suffix in &affixes {
            let affixes = Affixes { prefix: prefix.clone().into(), suffix: suffix.clone().into(), more: Vec::new() };
            let rule = Rule { events: events.clone(), filter: affixes.filter(), ..Rule::default() };
            let wanted = keys.iter().enumerate().filter(|(_, key)| {
                let e = crate::event::Event::new(KnownType::ObjectCreatedPut.into(), "b", key.as_bytes());
                let bytes = crate::event::frame::encode_to_vec(&e, 1);
                rule.filter.matches_frame(crate::event::FrameView::parse(&bytes).unwrap())
            });
            let wanted = wanted.fold(0, |set, (i, _)| set | 1u128 << i);
            let rule = LocatedRule { rule, affixes, offset: 0, event_offsets: Vec::new(), destination_offset: 0 };
            rules.push((rule, wanted));
        }
    }
    for (a, of_a) in &rules {
        for (b, of_b) in &rules {
            let (found, exists) = (overlap(a, b).is_some(), of_a & of_b != 0);
            assert_eq!(found, exists, "{:?} and {:?}", a.affixes, b.affixes);
        }
    }
}

#[test]
fn a_filter_of_a_document_is_read_by_itself() {
    let read = |text: &str, options: &NotificationOptions| parse_s3_filter(text, options);
    let plain = NotificationOptions::default();
    let xml = r#" <Filter><S3Key><FilterRule><Name>prefix</Name><Value>in/</Value></FilterRule></S3Key></Filter>"#;
    let json = r#"{"Key": {"FilterRules": [{"Name": "Suffix", "Value": ".jpg"}, {"Name": "prefix", "Value": "in+"}]}}"#;
    assert_eq!(read(xml, &plain).unwrap(), Filter::new("in/", ""));
    assert_eq!(read(json, &plain).unwrap(), Filter::new("in+", ".jpg"));
    let encoded = NotificationOptions { filter_values: FilterValues::Encoded, ..NotificationOptions::default() };
    assert_eq!(read(json, &encoded).unwrap(), Filter::new("in ", ".jpg"));
    let tags = r#"{"Tags": {"FilterRules": [{"Name": "k", "Value": "v"}]}}"#;
    assert_eq!(read(tags, &ceph()).unwrap(), Filter::Is(Field::Tag("k".into()), Test::equals("v")));
    for (text, place, part) in [
        ("", "filter:1:1", "no filter"),
        ("prefix", "filter:1:1", "write XML"),
        ("{\"Key\": 5}", "filter:1:", "invalid type"),
        ("{\"Kay\": {}}", "filter:1:2", "unknown field `Kay`"),
        (tags, "filter:1:2", "extensions"),
        ("{\"Key\": {}} {}", "filter:1:", "trailing"),
        ("<S3Key/>", "filter:1:1", "write <Filter>"),
        ("<Filter>\n<S3Key><FilterRule/></S3Key></Filter>", "filter:2:8", "lacks its name"),
        ("<Filter/><Event>x</Event>", "filter:1:10", "follows the end"),
        (&xml.replace("prefix", "infix"), "filter:1:", "unknown filter rule `infix`"),
        (&json.replace("Suffix", "PREFIX"), "filter:1:", "given twice"),
    ] {
        let e = read(text, &plain).unwrap_err();
        let shown = e.to_string();
        assert!(shown.starts_with(place) && shown.contains(part) && e.remedy_text().is_some(), "{shown}");
    }
}

mod robustness {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// Whatever is cut out of, or put into, a good document: rules or an error with a place, never a panic.
        #[test]
        fn damaged_documents_do_no_harm(json: bool, at in 0usize..1500, cut in 0usize..40, put in "\\PC{0,3}") {
            let doc = match (json, at % 2) { (true, 0) => JSON, (true, _) => CEPH_JSON, (false, 0) => XML, _ => CEPH_XML };
            let boundary = |mut i: usize| { i = i.min(doc.len()); while !doc.is_char_boundary(i) { i -= 1 } i };
            let (from, to) = (boundary(at), boundary(at + cut));
            let damaged = format!("{}{put}{}", &doc[..from], &doc[to..]);
            for format in [None, Some(Format::Xml), Some(Format::Json)] {
                let options = ceph();
                let arns = Arns::new(["images"], HashMap::new()).unwrap();
                let types = EventTypes::default();
                let n = Notification {
                    bucket: "b", text: &damaged, name: "n", format, options: &options, arns: &arns, types: &types,
                };
                if let Err(e) = n.rules() {
                    prop_assert!(e.place().is_some_and(|p| p.starts_with("n:")), "{}", e);
                }
            }
        }
    }
}

#[track_caller]
fn written(rules: &[Rule], format: Format) -> String {
    let (text, left_out) = write(rules, format);
    assert_eq!(left_out, [""; 0]);
    text
}

#[test]
fn a_document_is_given_back_as_it_was() {
    let ceph = NotificationOptions {
        extensions: Extensions::Ceph,
        filter_values: FilterValues::Encoded,
        event_bridge: Some("bus".into()),
        ..NotificationOptions::default()
    };
    let more = "<NotificationConfiguration><QueueConfiguration><Id>a &lt;b&gt;</Id><Queue>arn:tidewire:x:::images</Queue>\
        <Event>s3:ObjectCreated:*</Event><Event>acme:Scan:Clean</Event><Filter>\
        <S3Key><FilterRule><Name>prefix</Name><Value>my+photos%2F </Value></FilterRule>\
        <FilterRule><Name>regex</Name><Value>[a-z]+&#10;x</Value><Type>OUT</Type></FilterRule></S3Key>\
        <S3Metadata><FilterRule><Name>x-amz-meta-Who</Name><Value>me &amp; you</Value></FilterRule></S3Metadata>\
        <S3Tags><FilterRule><Name>Tier</Name><Value></Value></FilterRule></S3Tags>\
        </Filter></QueueConfiguration><EventBridgeConfiguration/></NotificationConfiguration>";
    for (text, options) in [(XML, NotificationOptions::default()), (JSON, NotificationOptions::default()), (more, ceph)]
    {
        let mut rules = read(text, &options).unwrap();
        for format in [Format::Xml, Format::Json] {
            let back = written(&rules, format);
            let mut again = read(&back, &options).unwrap();
            rules.sort_by(|a, b| a.id.cmp(&b.id));
            again.sort_by(|a, b| a.id.cmp(&b.id));
            assert_eq!(again, rules, "{back}");
            assert_eq!(written(&again, format), back, "made ids are kept");
        }
    }
    let xml = written(&rules(XML), Format::Xml);
    for part in [
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<NotificationConfiguration xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\">\
         <TopicConfiguration><Id>tidewire-",
        "<QueueConfiguration><Id>thumbs</Id><Queue>arn:tidewire:events:::images</Queue>\
         <Event>s3:ObjectCreated:Put</Event><Event>s3:ObjectRemoved:*</Event><Filter><S3Key>\
         <FilterRule><Name>Prefix</Name><Value>in &amp; out/</Value></FilterRule>\
         <FilterRule><Name>Suffix</Name><Value>.jpg</Value></FilterRule></S3Key></Filter></QueueConfiguration>",
        "<CloudFunction>arn:minio:sqs::bus:webhook</CloudFunction>",
    ] {
        assert!(xml.contains(part), "{xml}");
    }
    assert_eq!(
        written(&[], Format::Xml),
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n\
         <NotificationConfiguration xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\"></NotificationConfiguration>"
    );
    assert_eq!(written(&[], Format::Json), "{}");
}

#[test]
fn rules_that_came_from_elsewhere_stand_in_a_document_if_one_can_say_them() {
    let types = EventTypes::default();
    let rule = |id: &str, filter: Filter| {
        let rule = Rule::new(id, ["s3:ObjectCreated:*"], &types).unwrap();
        rule.with_bucket("photos").with_filter(filter).with_destination("images")
    };
    let tag = Filter::Is(Field::Tag("t".into()), Test::equals("1"));
    let says = [rule("both", Filter::new("a/", ".b")), rule("none", Filter::default())];
    let text = written(&says, Format::Xml);
    let again = rules(&text);
    assert_eq!(again.len(), 2);
    for (was, is) in says.iter().zip(&again) {
        assert_eq!((&was.id, &was.filter, &was.events), (&is.id, &is.filter, &is.events));
        assert_eq!(was.destinations, is.destinations);
    }
    let mut kept = rule("kept", Filter::default());
    kept.retain = true;
    let cannot = [
        rule("tag", tag),
        rule("bytes", Filter::Is(Field::Key, Test::prefix(vec![0xff]))),
        rule("two", Filter::default()).with_destination("bus"),
        rule("high", Filter::default()).with_priority(crate::event::Priority::High),
        kept,
    ];
    let (text, left_out) = write(cannot.iter().chain(&says), Format::Json);
    assert_eq!(left_out, ["tag", "bytes", "two", "high", "kept"]);
    assert_eq!(rules(&text).len(), 2);
    let control = [rule("control", Filter::new("\u{1}", ""))];
    assert_eq!(write(&control, Format::Xml).1, ["control"]);
    let (text, left_out) = write(&control, Format::Json);
    assert_eq!((rules(&text)[0].filter.clone(), left_out.len()), (control[0].filter.clone(), 0));
}

#[test]
fn errors_have_the_codes_of_s3() {
    let default = NotificationOptions::default();
    let strict = NotificationOptions { overlap: Overlap::StrictAws, ..NotificationOptions::default() };
    let queue = |inner: &str| {
        format!(
            "<NotificationConfiguration><QueueConfiguration>{inner}</QueueConfiguration></NotificationConfiguration>"
        )
    };
    let good = "<Queue>arn:tidewire:x:::images</Queue><Event>s3:ObjectCreated:*</Event>";
    let twice = format!("{good}</QueueConfiguration><QueueConfiguration>{good}");
    let long = "x".repeat(DOCUMENT_BYTES_MAX + 1);
    for (text, options, code) in [
        ("<NotificationConfiguration>", &default, S3Code::MalformedXml),
        ("{\"QueueConfigurations\": [}", &default, S3Code::MalformedXml),
        ("", &default, S3Code::MalformedXml),
        (&*queue("<Quue>x</Quue>"), &default, S3Code::MalformedXml),
        (
            &*queue("<Queue>arn:tidewire:x:::nobody</Queue><Event>s3:ObjectCreated:*</Event>"),
            &default,
            S3Code::InvalidArgument,
        ),
        (&*queue("<Queue>arn:tidewire:x:::images</Queue><Event>s3:No:Such</Event>"), &default, S3Code::InvalidArgument),
        (&*queue(&twice), &strict, S3Code::InvalidArgument),
        (&*long, &default, S3Code::EntityTooLarge),
    ] {
        let e = read(text, options).unwrap_err();
        assert_eq!(e.s3_code(), code, "{e}");
        assert_eq!(code.status(), 400);
    }
    let e = read(&queue("<Queue>a\u{1}&amp;</Queue><Event>s3:ObjectCreated:*</Event>"), &default).unwrap_err();
    let xml = e.to_s3_xml("/photos?<x>", "r1");
    assert!(xml.starts_with("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<Error><Code>"), "{xml}");
    assert!(xml.ends_with("<Resource>/photos?&lt;x&gt;</Resource><RequestId>r1</RequestId></Error>"), "{xml}");
    assert!(!xml.contains('\u{1}'), "{xml}");
    // What failed here is nobody's affair.
    let secret = Error::new(crate::ErrorKind::Io, "/secret/path").to_s3_xml("/b", "r");
    assert!(secret.contains("<Code>InternalError</Code>") && !secret.contains("secret"), "{secret}");
}
