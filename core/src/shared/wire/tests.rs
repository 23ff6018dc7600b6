use proptest::prelude::*;

use super::*;

proptest! {
    #[test]
    fn what_precedes_a_frame_comes_out_as_it_went_in(
        key in proptest::option::of(any::<u128>()),
        host_cursor in proptest::option::of(any::<u64>()),
        token in (any::<u64>(), any::<u16>(), any::<u64>()),
        frame in proptest::collection::vec(any::<u8>(), 0..40),
    ) {
        let asked = Asked { dedup_key: key.map(DedupKey::of_number), host_cursor };
        let mut bytes = vec![0; Asked::BYTES + frame.len()];
        asked.encode(&mut bytes).copy_from_slice(&frame);
        let (back, rest) = Asked::decode(&bytes).unwrap();
        prop_assert_eq!((back, rest), (asked, &frame[..]));
        let (incarnation, shard, sequence) = token;
        let token = EventId { incarnation, shard, sequence };
        let mut bytes = vec![0; TOKEN_BYTES + frame.len()];
        encode_token(token, &mut bytes).copy_from_slice(&frame);
        prop_assert_eq!(decode_token(&bytes).unwrap(), (token, &frame[..]));
    }

    #[test]
    fn any_bytes_are_read_without_harm(bytes in proptest::collection::vec(any::<u8>(), 0..200), magic in any::<bool>()) {
        let _ = (Asked::decode(&bytes), decode_token(&bytes));
        let (mut a, b) = UnixStream::pair().unwrap();
        if magic {
            a.write_all(b"TWS1").unwrap();
        }
        a.write_all(&bytes).unwrap();
        drop(a);
        let mut inbox = Inbox::default();
        prop_assert!(!inbox.fill(&b));
        while let Ok(Some(_)) = inbox.next::<Told>() {}
        let (mut a, b) = UnixStream::pair().unwrap();
        a.write_all(&bytes).unwrap();
        drop(a);
        prop_assert!(receive::<Hello>(&b).is_err());
    }
}

#[test]
fn errors_come_as_they_went() {
    let e = Error::new(ErrorKind::Conflict, "what").at("where").remedy("how").s3(S3Code::MalformedXml);
    let text = serde_json::to_string(&WireError::from(&e)).unwrap();
    let back: Error = serde_json::from_str::<WireError>(&text).unwrap().into();
    assert_eq!(format!("{e:?}"), format!("{back:?}"));
    assert_eq!((back.kind(), back.s3_code()), (ErrorKind::Conflict, S3Code::MalformedXml));
    let e = Error::new(ErrorKind::Full, "plain");
    let back: Error = WireError::from(&e).into();
    assert_eq!((back.place(), back.remedy_text(), back.s3_code()), (None, None, e.s3_code()));
}

#[test]
fn descriptors_go_over_and_what_waits_is_kept_within_bounds() {
    let (a, b) = UnixStream::pair().unwrap();
    let fds: Vec<OwnedFd> = (0..5).map(|n| crate::driver::eventfd(n + 1).unwrap()).collect();
    send(&a, &"hello", b"behind").unwrap();
    send_descriptors(&a, [0, 1, 2, 3, 4].map(|n: usize| fds[n].as_raw_fd())).unwrap();
    let (text, behind): (String, _) = receive(&b).unwrap();
    assert_eq!((text.as_str(), &behind[..]), ("hello", &b"behind"[..]));
    let got = receive_descriptors(&b).unwrap();
    for (n, fd) in got.iter().enumerate() {
        let mut count = [0; 8];
        // SAFETY: eight bytes that may be written; the descriptor is open.
        assert_eq!(unsafe { libc::read(fd.as_raw_fd(), count.as_mut_ptr().cast(), 8) }, 8);
        assert_eq!(u64::from_ne_bytes(count), n as u64 + 1);
    }
    assert!(message(&"x", &vec![0; PART_BYTES_MAX + 1]).is_err());

    // Nobody reads.
    let mut outbox = Outbox::default();
    let told = || Told::Failed { position: 8, ack: 2, error: (&Error::new(ErrorKind::Io, "x".repeat(10_000))).into() };
    let mut count = 0;
    while outbox.add(&told()) {
        assert!(outbox.flush(&a));
        count += 1;
        assert!(count < 5000);
    }
    assert!(!outbox.is_empty());
    drop(b);
    assert!(!outbox.flush(&a));
}
