use std::time::Duration;

use bytes::BytesMut;
use proptest::prelude::*;
use url::Url;

use super::*;
use crate::error::ErrorKind;

fn url(text: &str) -> Url {
    Url::parse(text).expect("a URL")
}

fn rendered(head: &RequestHead, extra: &[(&str, &str)], length: u64) -> String {
    let mut out = BytesMut::new();
    head.write(extra, length, &mut out).expect("a head");
    String::from_utf8(out.into()).expect("ASCII")
}

type Parsed = Result<(Response, State), ResponseError>;

/// Feeds pieces, then ends the connection.
fn parse(pieces: &[&[u8]]) -> Parsed {
    let mut parser = ResponseParser::new();
    let mut state = State::NeedMore;
    for piece in pieces {
        let mut rest = *piece;
        loop {
            let progress = parser.feed(rest)?;
            assert!(progress.consumed <= rest.len());
            rest = &rest[progress.consumed..];
            state = progress.state;
            if rest.is_empty() || state != State::NeedMore {
                break;
            }
        }
    }
    if state == State::NeedMore {
        state = parser.eof()?;
    }
    let response = parser.take_response().expect("finished");
    assert!(parser.zero_bytes_seen(), "taking the answer starts anew");
    Ok((response, state))
}

fn parse_one(input: &[u8]) -> Parsed {
    parse(&[input])
}

fn plain(status: u16) -> Response {
    Response {
        status,
        retry_after: None,
        location: None,
        keep_alive: true,
        keep_alive_timeout: None,
        body_start: Vec::new(),
        bytes_after: 0,
        header: None,
        also: None,
    }
}

#[test]
fn head_of_a_post() {
    let head = RequestHead::post(&url("https://h.example/a b?q=\"1\"#f"), "application/json", &[("X-Key", "v 1")]);
    let head = head.expect("a head");
    let expected = concat!(
        "POST /a%20b?q=%221%22 HTTP/1.1\r\nHost: h.example\r\nUser-Agent: tidewire/",
        env!("CARGO_PKG_VERSION"),
        "\r\nContent-Type: application/json\r\nX-Key: v 1\r\nAccept-Encoding: identity\r\n",
        "webhook-id: 7\r\nContent-Length: 12\r\n\r\n"
    );
    assert_eq!(rendered(&head, &[("webhook-id", "7")], 12), expected);
    // A second rendering appends, and leaves nothing of the first behind.
    let mut out = BytesMut::from("before");
    head.write(&[("webhook-id", "7")], 12, &mut out).expect("a head");
    assert_eq!(out, format!("before{expected}"));
}

#[test]
fn authority_and_target() {
    for (text, authority, target) in [
        ("http://h.example", "h.example", "/"),
        ("http://h.example:80/", "h.example", "/"),
        ("https://h.example:443/x", "h.example", "/x"),
        ("https://h.example:80/x?", "h.example:80", "/x?"),
        ("http://127.0.0.1:9000/x", "127.0.0.1:9000", "/x"),
        ("http://[::1]/x", "[::1]", "/x"),
        ("http://[2001:DB8::1]:8080/x", "[2001:db8::1]:8080", "/x"),
        ("http://bücher.example/ü", "xn--bcher-kva.example", "/%C3%BC"),
        ("http://h.example/a%0d%0aX: y", "h.example", "/a%0d%0aX:%20y"),
    ] {
        let head = RequestHead::post(&url(text), "text/plain", &[]).expect(text);
        assert_eq!((head.authority(), head.target()), (authority, target), "{text}");
    }
}

#[test]
fn own_user_agent_and_no_content_type() {
    let head = RequestHead::new(Method::Options, &url("http://h/"), None, &[("user-agent", "mine")]).expect("a head");
    assert_eq!(
        rendered(&head, &[], 0),
        "OPTIONS / HTTP/1.1\r\nHost: h\r\nuser-agent: mine\r\nAccept-Encoding: identity\r\nContent-Length: 0\r\n\r\n"
    );
}

#[test]
fn heads_that_are_refused() {
    let secret = "hunter2";
    let refused = |name: &str, value: &str| {
        let given = RequestHead::post(&url("http://h/"), "text/plain", &[(name, value)]);
        let error = given.err().unwrap_or_else(|| panic!("{name:?}: {value:?} was taken"));
        assert_eq!(error.kind(), ErrorKind::InvalidConfig);
        assert!(!error.to_string().contains(secret), "{error}");
        let head = RequestHead::post(&url("http://h/"), "text/plain", &[]).expect("a head");
        let mut out = BytesMut::from("before");
        let error = head.write(&[("ok", "ok"), (name, value)], 1, &mut out).expect_err(name);
        assert_eq!((error.kind(), &out[..]), (ErrorKind::InvalidArgument, &b"before"[..]));
    };
    for value in ["\r\nX: y", "\n", "\rX", "\0", "\x7f", "é", "a\x0bb"] {
        refused("X-Key", &format!("{secret}{value}"));
    }
    for name in ["", " ", "a b", "a:", "a\r\nb", "é", "Host", "content-length", "Transfer-Encoding", "EXPECT", "TE"] {
        refused(name, secret);
    }
    refused("X-Big", &"x".repeat(REQUEST_HEAD_BYTES_MAX));
    for text in ["ftp://h/", "http://user@h/", "http://:hunter2@h/"] {
        let error = RequestHead::post(&url(text), "text/plain", &[]).expect_err(text);
        assert!(!error.to_string().contains(secret), "{error}");
    }
    assert!(RequestHead::post(&url("http://h/"), "text/plain\r\n", &[]).is_err());
    for twice in ["Content-Type", "authorization"] {
        let headers = [(twice, "a"), (twice, "a")];
        assert!(RequestHead::post(&url("http://h/"), "text/plain", &headers).is_err(), "{twice}");
    }
    let head = RequestHead::post(&url("http://h/p?token=hunter2"), "text/plain", &[("Authorization", secret)]);
    assert!(!format!("{head:?}").contains(secret));
}

#[test]
fn every_split_gives_the_same() {
    let retry = Response { retry_after: Some(RetryAfter::Seconds(7)), ..plain(503) };
    let cases: Vec<(&[u8], Response)> = vec![
        (b"HTTP/1.1 204 No Content\r\n\r\n", plain(204)),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", plain(200)),
        (b"HTTP/1.1 200\nContent-Length:3\n\nabc", Response { body_start: b"abc".to_vec(), ..plain(200) }),
        (b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\nHTTP/1.1 304 \r\n\r\n", plain(304)),
        (
            b"HTTP/1.1 503 No\r\nRetry-After: 7\r\nTransfer-Encoding: chunked\r\n\r\n\
              3;a=\"b\"\r\nabc\r\n0A \r\n0123456789\r\n000\r\nX-T: 1\r\nY: 2\r\n\r\n",
            Response { body_start: b"abc0123456789".to_vec(), ..retry },
        ),
        (
            b"HTTP/1.1 200 OK\r\nConnection: x, Close\r\nKeep-Alive: max=5, timeout=9\r\nContent-Length: 2, 2\r\n\
              Content-Length: 2\r\n\r\nok",
            Response {
                keep_alive: false,
                keep_alive_timeout: Some(Duration::from_secs(9)),
                body_start: b"ok".to_vec(),
                ..plain(200)
            },
        ),
        (
            b"HTTP/1.0 200 OK\r\nServer: x\r\n\r\ntill the end",
            Response { keep_alive: false, body_start: b"till the end".to_vec(), ..plain(200) },
        ),
        (
            b"HTTP/1.1 307 T\r\nLocation : https://x/\r\nContent-Length: 0\r\n\r\n",
            Response { location: Some("https://x/".into()), ..plain(307) },
        ),
        (b"HTTP/1.1 204 N\r\nContent-Length: 5\r\n\r\n", plain(204)),
        (b"HTTP/1.1 204 N\r\n\r\nhello", Response { keep_alive: false, bytes_after: 5, ..plain(204) }),
    ];
    for (input, expected) in cases {
        let shown = String::from_utf8_lossy(input);
        let expected = Ok((expected, State::Done));
        assert_eq!(parse_one(input), expected, "{shown}");
        let single: Vec<&[u8]> = input.chunks(1).collect();
        assert_eq!(parse(&single), expected, "{shown}");
        for a in 0..=input.len() {
            for b in a..=input.len() {
                assert_eq!(parse(&[&input[..a], &input[a..b], &input[b..]]), expected, "{shown} at {a}, {b}");
            }
        }
    }
}

#[test]
fn one_parser_reads_answers_in_a_row() {
    let mut parser = ResponseParser::new();
    for (body, status) in [("a", 200), ("", 500), ("ccc", 202)] {
        let input = format!("HTTP/1.1 {status} X\r\nContent-Length: {}\r\n\r\n{body}", body.len());
        let (head, tail) = input.as_bytes().split_at(10);
        assert!(parser.zero_bytes_seen());
        assert_eq!(parser.feed(head), Ok(Progress { consumed: 10, state: State::NeedMore }));
        assert_eq!(parser.take_response(), None);
        assert_eq!(parser.feed(tail), Ok(Progress { consumed: tail.len(), state: State::Done }));
        let response = parser.take_response().expect("done");
        assert_eq!((response.status, response.body_start.as_slice()), (status, body.as_bytes()));
    }
}

proptest! {
    /// What a parser knows from before changes nothing.
    #[test]
    fn an_answer_is_read_alike_whatever_came_before(
        answers in prop::collection::vec((prop::sample::select(&[
            "HTTP/1.1 204 N\r\nServer: x\r\n\r\n",
            "HTTP/1.1 204 N\r\nServer: x\r\nConnection: close\r\n\r\n",
            "HTTP/1.1 204 N\r\nServer: x\r\nKeep-Alive: timeout=5\r\n\r\n",
            "HTTP/1.1 204 N\nServer: x\n\n",
            "HTTP/1.1 100 C\r\n\r\nHTTP/1.1 204 N\r\nServer: x\r\n\r\n",
            "HTTP/1.1 200 O\r\nContent-Length: 3\r\n\r\nabc",
            "HTTP/1.1 200 O\r\nContent-Length: 3\r\n\r\ncba",
            "HTTP/1.1 200 O\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n0\r\n\r\n",
            "HTTP/1.1 200 O\r\nX: y\r\nContent-Length: 0\r\n\r\n",
            "HTTP/1.1 200 O\r\nX: z\r\nContent-Length: 0\r\n\r\n",
            "HTTP/1.1 503 O\r\nRetry-After: 7\r\nContent-Length: 0\r\n\r\n",
            "HTTP/1.1 307 O\r\nLocation: /a\r\nContent-Length: 0\r\n\r\n",
            "HTTP/1.1 204 N\r\nServer: x\r\n\r\nmore",
        ][..]), 1usize..80), 1..20),
    ) {
        let mut parser = ResponseParser::new().looking_for(Some("X".into()));
        for (answer, size) in answers {
            let mut fresh = ResponseParser::new().looking_for(Some("X".into()));
            for piece in answer.as_bytes().chunks(size) {
                prop_assert_eq!(parser.feed(piece), fresh.feed(piece));
            }
            let response = parser.take_response();
            prop_assert!(response.is_some());
            prop_assert_eq!(response, fresh.take_response());
        }
    }
}

#[test]
fn answers_that_are_refused() {
    let malformed = |what| Err(ResponseError::Malformed(what));
    let cases: &[(&[u8], Parsed)] = &[
        (
            b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\na",
            malformed("two different Content-Length"),
        ),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 1, 2\r\n\r\na", malformed("two different Content-Length")),
        (b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n", malformed("Content-Length")),
        (b"HTTP/1.1 200 OK\r\nContent-Length: +1\r\n\r\n", malformed("Content-Length")),
        (b"HTTP/1.1 200 OK\r\nContent-Length:\r\n\r\n", malformed("Content-Length")),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 99999999999999999999\r\n\r\n", malformed("Content-Length")),
        (
            b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
            malformed("both Content-Length and Transfer-Encoding"),
        ),
        (
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n10000000000000000\r\n",
            malformed("a chunk size overflows"),
        ),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n\r\n", malformed("a chunk has no size")),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n-1\r\n", malformed("a chunk has no size")),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1x\r\n", malformed("a chunk size is not a number")),
        (
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nab\r\n",
            malformed("a line of the chunked body does not end in CR LF"),
        ),
        (b"HTTP/1.1 20 OK\r\n\r\n", malformed("the status line")),
        (b"HTTP/1.1 099 OK\r\n\r\n", malformed("the status code")),
        (b"HTTP/1.1 101 Switch\r\n\r\n", malformed("a switch of protocols that was not asked for")),
        (b"HTTP/1.1 200 OK\r\nno colon\r\n\r\n", malformed("a header field")),
        (b"SSH-2.0-OpenSSH_9.2\r\n", Err(ResponseError::NotHttp { hint: "" })),
        (b"\r\n", Err(ResponseError::NotHttp { hint: "" })),
        (b"HTTP/2 200\r\n", Err(ResponseError::NotHttp { hint: "" })),
        (b"\x15\x03\x01\x00\x02", Err(ResponseError::NotHttp { hint: "; it seems to speak TLS: use https://" })),
        (b"\0\0\x12\x04\0", Err(ResponseError::NotHttp { hint: "; it seems to speak HTTP/2 only" })),
        (b"", Err(ResponseError::Closed)),
        (b"HTTP/1.1 200 OK\r\nContent-Le", Err(ResponseError::Truncated { status: None })),
        (b"HTTP/1.1 100 Continue\r\n\r\n", Err(ResponseError::Truncated { status: None })),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nab", Err(ResponseError::Truncated { status: Some(200) })),
        (
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n",
            Err(ResponseError::Truncated { status: Some(200) }),
        ),
    ];
    for (input, expected) in cases {
        let shown = String::from_utf8_lossy(input);
        assert_eq!(parse_one(input), *expected, "{shown}");
        let single: Vec<&[u8]> = input.chunks(1).collect();
        assert_eq!(parse(&single), *expected, "{shown}");
    }
}

#[test]
fn an_error_stays() {
    let mut parser = ResponseParser::new();
    assert!(parser.feed(b"nonsense").is_err());
    assert!(parser.feed(b"HTTP/1.1 204 N\r\n\r\n").is_err());
    assert!(parser.eof().is_err());
    assert!(!parser.zero_bytes_seen());
    assert_eq!(parser.take_response(), None);
}

#[test]
fn headers_are_bounded() {
    let long = [b"HTTP/1.1 200 OK\r\nX: ".to_vec(), vec![b'x'; 1 << 20]].concat();
    let many = [b"HTTP/1.1 200 OK\r\n".to_vec(), b"X: y\r\n".repeat(HEADERS_MAX + 1), b"\r\n".to_vec()].concat();
    for input in [&long, &many] {
        for size in [1, 7, 4096, input.len()] {
            let pieces: Vec<&[u8]> = input.chunks(size).collect();
            assert_eq!(parse(&pieces), Err(ResponseError::HeadTooLarge));
        }
    }
    // Exactly the limit is taken, one byte more is not.
    let fill = |n: usize| {
        let start = "HTTP/1.1 204 N\r\nX: ";
        format!("{start}{}\r\n\r\n", "x".repeat(n - start.len() - 4)).into_bytes()
    };
    assert!(parse_one(&fill(RESPONSE_HEAD_BYTES_MAX)).is_ok());
    assert_eq!(parse_one(&fill(RESPONSE_HEAD_BYTES_MAX + 1)), Err(ResponseError::HeadTooLarge));
}

#[test]
fn interim_answers_are_bounded() {
    let flood = |n: u32| format!("{}HTTP/1.1 204 N\r\n\r\n", "HTTP/1.1 102 P\r\n\r\n".repeat(n as usize)).into_bytes();
    assert_eq!(parse_one(&flood(INTERIM_RESPONSES_MAX)), Ok((plain(204), State::Done)));
    assert_eq!(parse_one(&flood(INTERIM_RESPONSES_MAX + 1)), Err(ResponseError::TooManyInterim));
    assert_eq!(parse_one(&flood(1 << 16)), Err(ResponseError::TooManyInterim));
}

#[test]
fn bodies_are_bounded() {
    let endless = vec![b'x'; 1 << 20];
    let chunk = [b"100000\r\n".to_vec(), endless.clone()].concat();
    let extension = [b"1;".to_vec(), endless.clone()].concat();
    let trailer = [b"0\r\nX: ".to_vec(), endless.clone()].concat();
    for (head, body) in [
        ("HTTP/1.1 200 OK\r\nContent-Length: 1048576\r\n\r\n", &endless),
        ("HTTP/1.1 200 OK\r\nContent-Length: 18446744073709551615\r\n\r\n", &endless),
        ("HTTP/1.1 200 OK\r\n\r\n", &endless),
        ("HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, Chunked\r\n\r\n", &chunk),
        ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", &extension),
        ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", &trailer),
    ] {
        let input = [head.as_bytes(), body].concat();
        for size in [1, 1000, input.len()] {
            let mut parser = ResponseParser::new();
            let mut consumed = 0;
            for piece in input.chunks(size) {
                let progress = parser.feed(piece).expect(head);
                consumed += progress.consumed;
                if progress.state == State::CloseAfter {
                    break;
                }
            }
            assert_eq!(consumed, head.len() + BODY_READ_BYTES_MAX, "{head}");
            assert_eq!(parser.status(), Some(200));
            let response = parser.take_response().expect(head);
            assert!(!response.keep_alive && response.body_start.len() <= BODY_KEPT_BYTES_MAX);
            assert_eq!(response.bytes_after, 0);
        }
    }
    let full = [b"HTTP/1.1 200 OK\r\nContent-Length: 65536\r\n\r\n".to_vec(), vec![b'x'; 65536]].concat();
    let (response, state) = parse_one(&full).expect("a body of the limit");
    assert_eq!((state, response.keep_alive, response.body_start.len()), (State::Done, true, BODY_KEPT_BYTES_MAX));
}

#[test]
fn retry_after_values() {
    let max = RETRY_AFTER_MAX.as_secs();
    for (value, expected) in [
        ("0", Some(RetryAfter::Seconds(0))),
        (" 120 ", Some(RetryAfter::Seconds(120))),
        ("99999999999999999999999", Some(RetryAfter::Seconds(max))),
        ("Sun, 06 Nov 1994 08:49:37 GMT", Some(RetryAfter::At(784_111_777))),
        ("Sunday, 06-Nov-94 08:49:37 GMT", Some(RetryAfter::At(784_111_777))),
        ("Sun Nov  6 08:49:37 1994", Some(RetryAfter::At(784_111_777))),
        ("Thu, 29 Feb 2024 23:59:60 GMT", Some(RetryAfter::At(1_709_251_200))),
        ("Thu, 01 Jan 1970 00:00:00 GMT", Some(RetryAfter::At(0))),
        ("Thursday, 01-Jan-26 00:00:00 GMT", Some(RetryAfter::At(1_767_225_600))),
        ("-1", None),
        ("+1", None),
        ("1.5", None),
        ("", None),
        ("soon", None),
        ("é", None),
        ("Sun, 06 Nov 1994 08:49:37 CET", None),
        ("Sun, 06 Nov 1994 25:49:37 GMT", None),
        ("Sun, 6 Nov 1994 08:49:37 GMT", None),
        ("Sun, 06 Nov 99999 08:49:37 GMT", None),
        ("Sun, 06 Nov 1994 08:49:37 GMT x", None),
    ] {
        assert_eq!(RetryAfter::parse(value.as_bytes()), expected, "{value}");
    }
    assert_eq!(RetryAfter::At(100).wait(70), Duration::from_secs(30));
    assert_eq!(RetryAfter::At(100).wait(200), Duration::ZERO);
    assert_eq!(RetryAfter::At(i64::MAX).wait(i64::MIN), RETRY_AFTER_MAX);
    let (response, _) = parse_one(b"HTTP/1.1 429 T\r\nRetry-After: x\r\nRetry-After: 3\r\nContent-Length: 0\r\n\r\n")
        .expect("an answer");
    assert_eq!(response.retry_after, Some(RetryAfter::Seconds(3)));
}

#[test]
fn location_is_cut_and_cleaned() {
    let input = format!("HTTP/1.1 302 F\r\nLocation: http://x/{}\r\nContent-Length: 0\r\n\r\n", "é".repeat(2000));
    let (response, _) = parse_one(input.as_bytes()).expect("an answer");
    let location = response.location.expect("a location");
    assert!(location.len() <= LOCATION_BYTES_MAX && location.starts_with("http://x/é"));
    let (response, _) = parse_one(b"HTTP/1.1 302 F\r\nLocation: a\tb\r\n c\xff\r\n\r\n").expect("an answer");
    assert!(!response.location.expect("a location").contains(char::is_control));
}

#[test]
fn classes() {
    for (status, class) in [
        (200, Class::Success),
        (204, Class::Success),
        (299, Class::Success),
        (301, Class::Retry),
        (304, Class::Retry),
        (400, Class::Poison),
        (401, Class::Unauthorized),
        (403, Class::Unauthorized),
        (404, Class::Retry),
        (408, Class::Retry),
        (409, Class::Retry),
        (410, Class::Gone),
        (413, Class::Poison),
        (415, Class::Poison),
        (422, Class::Poison),
        (429, Class::Throttle),
        (500, Class::Retry),
        (501, Class::Retry),
        (503, Class::Retry),
        (599, Class::Retry),
        (999, Class::Retry),
    ] {
        assert_eq!(classify(status), class, "{status}");
    }
}

#[test]
fn redirects_are_described_without_secrets() {
    assert_eq!(describe(&plain(500)), "the endpoint answered 500");
    for (location, shown) in [
        ("https://u:hunter2@x.example/p?token=hunter2", " https://x.example/p?...;"),
        ("https://x.example#hunter2", " https://x.example?...;"),
        ("/login?next=hunter2", " /login?...;"),
        ("//x.example", " //x.example;"),
        ("https://hunter2@x.example@y", " https://y;"),
    ] {
        let text = describe(&Response { location: Some(location.into()), ..plain(302) });
        assert!(text.contains(shown) && !text.contains("hunter2"), "{text}");
        assert!(text.contains("302") && text.contains("not followed"), "{text}");
    }
}

/// Text that looks enough like an answer to reach every state.
fn answer_like() -> impl Strategy<Value = Vec<u8>> {
    let part = prop_oneof![
        4 => prop::sample::select(vec![
            "HTTP/1.1 200 OK\r\n", "HTTP/1.0 500 No\r\n", "HTTP/1.1 100 C\r\n\r\n", "HTTP/1.1 204 N\n", "\r\n", "\n",
            "Content-Length: 5\r\n", "Content-Length: 99999\r\n", "Transfer-Encoding: chunked\r\n", "Connection: close\r\n",
            "Retry-After: 9\r\n", "Location: /x\r\n", "5\r\nhello\r\n", "0\r\n\r\n", "0\r\nX: y\r\n\r\n", ";", " ", "ffff\r\n",
        ]).prop_map(|s| s.as_bytes().to_vec()),
        1 => prop::collection::vec(any::<u8>(), 0..40),
        1 => (0usize..70_000).prop_map(|n| vec![b'z'; n]),
    ];
    prop::collection::vec(part, 0..12).prop_map(|parts| parts.concat())
}

proptest! {
    #[test]
    fn any_bytes_in_any_pieces_end_alike_and_bounded(
        start in any::<bool>(),
        tail in answer_like(),
        sizes in prop::collection::vec(1usize..5000, 1..20),
    ) {
        let input = if start { [b"HTTP/1.1 200 OK\r\n", tail.as_slice()].concat() } else { tail };
        let mut pieces = Vec::new();
        let mut rest = input.as_slice();
        for size in sizes.iter().cycle() {
            let (piece, more) = rest.split_at((*size).min(rest.len()));
            pieces.push(piece);
            rest = more;
            if rest.is_empty() {
                break;
            }
        }
        let whole = parse_one(&input);
        if let Ok((response, _)) = &whole {
            prop_assert!(response.body_start.len() <= BODY_KEPT_BYTES_MAX);
        }
        prop_assert_eq!(whole, parse(&pieces));
    }

    #[test]
    fn random_bytes_never_panic(input in prop::collection::vec(any::<u8>(), 0..300)) {
        let _ = parse_one(&input);
        let _ = parse_one(&[b"HTTP/1.1 200 OK\r\n".as_slice(), &input].concat());
        let _ = parse_one(&[b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n".as_slice(), &input].concat());
        let _ = parse_http_date(&input);
    }

    #[test]
    fn rendered_heads_have_the_lines_given(value in "[ -~]{0,40}", other in "\\PC{0,20}") {
        let head = RequestHead::post(&url("http://h/"), "text/plain", &[("X-Key", &value)]).expect("plain ASCII");
        prop_assert_eq!(rendered(&head, &[], 0).matches("\r\n").count(), 8);
        let mut out = BytesMut::new();
        if head.write(&[("X-Other", &other)], 0, &mut out).is_ok() {
            prop_assert_eq!(String::from_utf8(out.into()).expect("ASCII").matches('\n').count(), 9);
        }
    }
}

#[test]
fn a_proxy_is_asked_for_the_whole_url_and_the_signature_is_over_the_target() {
    let url = Url::parse("http://h.example:8080/a?b=c").unwrap();
    let head = RequestHead::post(&url, "text/plain", &[]).unwrap().for_proxy(Some("Basic eDp5")).unwrap();
    let mut out = BytesMut::new();
    head.write(&[], 0, &mut out).unwrap();
    let text = String::from_utf8(out.into()).unwrap();
    assert!(text.starts_with("POST http://h.example:8080/a?b=c HTTP/1.1\r\nHost: h.example:8080\r\n"), "{text}");
    assert!(text.contains("\r\nProxy-Authorization: Basic eDp5\r\n"), "{text}");
    assert_eq!(head.target(), "/a?b=c");
    let mut out = BytesMut::new();
    head.write_to("/a?b=c&key=k", &[], 0, &mut out).unwrap();
    assert!(out.starts_with(b"POST http://h.example:8080/a?b=c&key=k HTTP/1.1\r\n"));
}
