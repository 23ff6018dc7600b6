use proptest::prelude::*;

use super::*;

fn policy(trust: Trust) -> AddressPolicy {
    AddressPolicy { trust, ..AddressPolicy::default() }
}

fn nets(list: &[&str]) -> Vec<IpNet> {
    list.iter().map(|t| parse_net(t).unwrap()).collect()
}

/// What is written in a URL as its host, and whether an operator's and a tenant's destination may have it. A name may be
/// written: then its answer decides.
const LITERALS: &[(&str, bool, bool)] = &[
    // Public.
    ("8.8.8.8", true, true),
    ("1.1.1.1", true, true),
    ("93.184.216.34", true, true),
    ("172.15.255.255", true, true),
    ("172.32.0.0", true, true),
    ("100.63.255.255", true, true),
    ("100.128.0.0", true, true),
    ("198.17.255.255", true, true),
    ("198.20.0.0", true, true),
    ("223.255.255.255", true, true),
    ("[2606:4700:4700::1111]", true, true),
    ("[2a00:1450:4001:82f::200e]", true, true),
    // This machine and networks of one's own, in every spelling.
    ("127.0.0.1", true, false),
    ("127.1", true, false),
    ("127.255.255.254", true, false),
    ("0x7f.1", true, false),
    ("0x7f000001", true, false),
    ("2130706433", true, false),
    ("017700000001", true, false),
    ("0177.0.0.1", true, false),
    ("0x7F.0x0.0x0.0x1", true, false),
    ("127.0.0.1.", true, false),
    ("①②⑦.⓪.⓪.①", true, false),
    ("%31%32%37.0.0.1", true, false),
    ("１２７.０.０.１", true, false),
    ("127。0。0。1", true, false),
    ("127．1", true, false),
    ("0x7f。1", true, false),
    ("127\u{ad}.0.0.1", true, false),
    ("0x00000000000000007f.1", true, false),
    ("127.0x1", true, false),
    ("127.65537", true, false),
    ("10.0.0.1", true, false),
    ("10.255.255.255", true, false),
    ("012.1.2.3", true, false),
    ("172.16.0.1", true, false),
    ("172.31.255.255", true, false),
    ("192.168.1.1", true, false),
    ("3232235777", true, false),
    ("100.64.0.1", true, false),
    ("100.127.255.255", true, false),
    ("[::1]", true, false),
    ("[0:0:0:0:0:0:0:1]", true, false),
    ("[fd12:3456::1]", true, false),
    ("[fc00::1]", true, false),
    ("[fec0::1]", true, false),
    ("192.168.0257.1", true, false),
    ("10.0.258", true, false),
    ("0xac.0x10.1", true, false),
    ("[fdff:ffff:ffff:ffff:ffff:ffff:ffff:ffff]", true, false),
    // IPv4 inside IPv6.
    ("[::ffff:127.0.0.1]", true, false),
    ("[::ffff:7f00:1]", true, false),
    ("[0:0:0:0:0:ffff:7f00:0001]", true, false),
    ("[::127.0.0.1]", true, false),
    ("[::ffff:0:127.0.0.1]", true, false),
    ("[::ffff:8.8.8.8]", true, true),
    ("[64:ff9b::8.8.8.8]", true, true),
    ("[64:ff9b::7f00:1]", true, false),
    ("[64:ff9b::10.1.2.3]", true, false),
    ("[64:ff9b:1::8.8.8.8]", true, false),
    ("[64:ff9b:1:a9fe:a9:fe00::]", false, false),
    ("[64:ff9b:1::a9fe:a9fe]", false, false),
    ("[2002:7f00:1::1]", true, false),
    ("[2002:a00:1::]", true, false),
    ("[2002:808:808::1]", true, true),
    ("[2002:a9fe:a9fe::1]", false, false),
    ("[2001:0:808:808:0:0:80ff:fffe]", true, false),
    ("[2001:0:808:808:0:0:f7f7:f7f7]", true, true),
    ("[2001:0:a00:1:0:0:f7f7:f7f7]", true, false),
    ("[2001:0:808:808:0:0:5601:5601]", false, false),
    ("[2606:4700::5efe:a00:1]", true, false),
    ("[2606:4700::200:5efe:a9fe:a9fe]", false, false),
    // Metadata services: never.
    ("169.254.169.254", false, false),
    ("0xa9fea9fe", false, false),
    ("2852039166", false, false),
    ("169.254.169.254.", false, false),
    ("169.254.43518", false, false),
    ("169.16689662", false, false),
    ("0xA9.0xFE.0xA9.0xFE", false, false),
    ("025177524776", false, false),
    ("１６９.２５４.１６９.２５４", false, false),
    ("169。254。169。254", false, false),
    ("%31%36%39.254.169.254", false, false),
    ("[::FFFF:169.254.169.254]", false, false),
    ("[0000:0000:0000:0000:0000:ffff:a9fe:a9fe]", false, false),
    ("[64:ff9b:1:6440:c8:6464::]", false, false),
    ("[2002:6464:64c8::]", false, false),
    ("[2001:0:a9fe:a9fe:0:0:f7f7:f7f7]", false, false),
    ("[::ffff:0:a9fe:a9fe]", false, false),
    ("[fe80::200:5efe:808:808]", false, false),
    ("0251.0376.0251.0376", false, false),
    ("169.254.170.2", false, false),
    ("169.254.0.1", false, false),
    ("100.100.100.200", false, false),
    ("100.96.0.96", false, false),
    ("168.63.129.16", false, false),
    ("192.0.0.192", false, false),
    ("[fe80::1]", false, false),
    ("[fe80::a9fe:a9fe]", false, false),
    ("[febf::1]", false, false),
    ("[fd00:ec2::254]", false, false),
    ("[fd00:ec2::23]", false, false),
    ("[fd20:ce::254]", false, false),
    ("[fd00:c1::a9fe:a9fe]", false, false),
    ("[fd00:42::42]", false, false),
    ("[fd00:a9fe:a9fe::1]", false, false),
    ("[fd00:100::100:200]", false, false),
    ("[::ffff:169.254.169.254]", false, false),
    ("[::ffff:a9fe:a9fe]", false, false),
    ("[::169.254.169.254]", false, false),
    ("[64:ff9b::169.254.169.254]", false, false),
    // Of no one host.
    ("0.0.0.0", false, false),
    ("0", false, false),
    ("[::]", false, false),
    ("[::ffff:0.0.0.0]", false, false),
    ("224.0.0.1", false, false),
    ("239.255.255.250", false, false),
    ("255.255.255.255", false, false),
    ("[ff02::1]", false, false),
    // Special and not public.
    ("0.1.2.3", true, false),
    ("192.0.0.8", true, false),
    ("192.0.2.1", true, false),
    ("192.31.196.1", true, false),
    ("192.52.193.1", true, false),
    ("192.88.99.1", true, false),
    ("192.175.48.1", true, false),
    ("198.18.0.1", true, false),
    ("198.19.255.255", true, false),
    ("198.51.100.1", true, false),
    ("203.0.113.1", true, false),
    ("240.0.0.1", true, false),
    ("[100::1]", true, false),
    ("[100:0:0:1::1]", true, false),
    ("[2001:1::1]", true, false),
    ("[2001:2::1]", true, false),
    ("[2001:3::1]", true, false),
    ("[2001:4:112::1]", true, false),
    ("[2001:10::1]", true, false),
    ("[2001:20::1]", true, false),
    ("[2001:db8::1]", true, false),
    ("[2620:4f:8000::1]", true, false),
    ("[3fff::1]", true, false),
    ("[5f00::1]", true, false),
    ("[4000::1]", true, false),
    ("[e000::1]", true, false),
    ("[200::1]", true, false),
];

#[test]
fn ssrf_through_mapped_translated_and_tunneled_addresses() {
    for &(host, operator, tenant) in LITERALS {
        let url = Url::parse(&format!("https://{host}/")).unwrap_or_else(|e| panic!("{host}: {e}"));
        assert!(!matches!(url.host(), Some(Host::Domain(_)) | None), "{host} is taken for a name");
        for (trust, expected) in [(Trust::Operator, operator), (Trust::Tenant, tenant)] {
            let verdict = policy(trust).check_url(&url);
            assert_eq!(verdict.is_ok(), expected, "{host} for {trust:?}: {verdict:?}");
            if let Err(e) = verdict {
                assert_eq!((e.kind(), e.place()), (ErrorKind::InvalidConfig, Some("url")));
                assert!(e.remedy_text().is_some(), "{e}");
            }
        }
    }
}

/// URLs that look as if they led elsewhere, and the host that they lead to, or nothing if they are refused as they are.
const DISGUISED: &[(&str, Option<&str>)] = &[
    ("https://8.8.8.8@169.254.169.254/", None),
    ("https://hooks.example:443@10.0.0.1/", None),
    ("https://hooks.example%40127.0.0.1/", None),
    ("https://@127.0.0.1/", Some("127.0.0.1")),
    ("https://:@127.0.0.1/", Some("127.0.0.1")),
    ("https://127.0.0.1#@8.8.8.8/", None),
    ("https://127.0.0.1\\@8.8.8.8/", None),
    ("https://127.0.0.1\t.8.8.8.8/", None),
    ("https://127.0.0.1?@8.8.8.8/", Some("127.0.0.1")),
    ("https://127.0.0.1/@8.8.8.8/", Some("127.0.0.1")),
    ("https:127.0.0.1/", None),
    ("https:/127.0.0.1/", None),
    ("https:///127.0.0.1/", Some("127.0.0.1")),
    ("HTTPS://127.0.0.1/", Some("127.0.0.1")),
    (" https://127.0.0.1/", None),
    ("//127.0.0.1/", None),
    ("file:///etc/passwd", None),
    ("gopher://127.0.0.1:6379/_FLUSHALL", None),
    ("unix:///run/receiver.sock", None),
    ("https://[::ffff:127.0.0.1%25lo]/", None),
    ("https://[fe80::1%25eth0]/", None),
    ("https://127.0.0.1:0/", None),
    ("https://127.0.0.1:65536/", None),
    ("https://0xa9fea9fe/", Some("169.254.169.254")),
    ("https://0xa9fea9fe.hooks.example/", Some("0xa9fea9fe.hooks.example")),
    ("https://127.0.0.1.hooks.example/", Some("127.0.0.1.hooks.example")),
    ("https://localhost./", Some("localhost.")),
    ("https://ＬＯＣＡＬＨＯＳＴ/", Some("localhost")),
    ("https://ⓛocalhost/", Some("localhost")),
];

#[test]
fn ssrf_through_urls_that_seem_to_lead_elsewhere() {
    for &(text, expected) in DISGUISED {
        let webhook = crate::rule::Webhook::new(text);
        match expected {
            None => {
                let e = webhook.map(|w| w.url).expect_err(text);
                assert_eq!((e.kind(), e.place()), (ErrorKind::InvalidConfig, Some("url")), "{text}");
            }
            Some(host) => {
                let url = webhook.expect(text).url;
                assert_eq!(url.host_str(), Some(host), "{text}");
                let is_name = matches!(url.host(), Some(Host::Domain(_)));
                // A name is judged by its answer, when it is connected to.
                assert_eq!(policy(Trust::Tenant).check_url(&url).is_ok(), is_name, "{text}");
            }
        }
    }
}

/// The literals that the URL reader itself does not take, so that nothing else ever sees them.
#[test]
fn literals_that_are_no_host() {
    for host in [
        "[fe80::1%25eth0]",
        "[fe80::1%eth0]",
        "[::1",
        "1.2.3.4.5",
        "256.1.1.1",
        "0x7f.0.0.0.1",
        "[127.0.0.1]",
        "::1",
        "999",
    ] {
        let url = Url::parse(&format!("https://{host}/"));
        // The last one is a number, and a number is an address.
        match url {
            Err(_) => {}
            Ok(url) => assert!(host == "999" && url.host() == Some(Host::Ipv4(Ipv4Addr::new(0, 0, 3, 231))), "{url}"),
        }
    }
}

#[test]
fn the_ends_of_every_range_are_in_it() {
    let (operator, tenant) = (policy(Trust::Operator), policy(Trust::Tenant));
    for r in &RANGES {
        for ip in [r.net.network(), r.net.broadcast()] {
            let refused = tenant.judge_ip(ip).expect_err(r.name);
            let named = match refused.why {
                Why::Metadata(named) | Why::NotOneHost(named) | Why::NotPublic(named) => named,
                why => panic!("{why}"),
            };
            // Another one only if that is narrower, or of more weight, or the address is judged by what it embeds.
            let heavier = matches!(named.class, Class::Metadata | Class::NotOneHost) || refused.form != ip;
            assert!(heavier || named.net.prefix_len() >= r.net.prefix_len(), "{ip}: {} before {}", named.net, r.net);
            let open = operator.judge_ip(ip).is_ok();
            assert!(!(open && r.class != Class::NotPublic), "{ip} of {} is open to operators", r.net);
        }
    }
    // One beyond, where that is public.
    for ip in
        ["9.255.255.255", "11.0.0.0", "126.255.255.255", "128.0.0.0", "169.253.255.255", "169.255.0.0", "192.0.1.0"]
    {
        tenant.judge_ip(ip.parse().unwrap()).expect(ip);
    }
    for ip in ["2001:200::", "2001:db7:ffff::", "2001:db9::", "3ffe:ffff::", "2000::", "3fff:1000::"] {
        tenant.judge_ip(ip.parse().unwrap()).expect(ip);
    }
}

#[test]
fn lists_and_their_order() {
    let judge = |trust, allow: &[&str], deny: &[&str], ip: &str| {
        let policy = AddressPolicy { allow: nets(allow), deny: nets(deny), ..policy(trust) };
        policy.judge_ip(ip.parse().unwrap()).map_err(|r| r.to_string())
    };
    use Trust::{Operator, Tenant};
    judge(Tenant, &["10.1.0.0/16"], &[], "10.1.2.3").unwrap();
    judge(Tenant, &["10.1.0.0/16"], &[], "::ffff:10.1.2.3").unwrap();
    judge(Tenant, &["127.0.0.1"], &[], "127.0.0.1").unwrap();
    assert!(judge(Tenant, &["10.1.0.0/16"], &[], "10.2.0.1").unwrap_err().contains("10.0.0.0/8 (private network)"));
    // A denial goes before a grant.
    assert!(judge(Tenant, &["10.1.0.0/16"], &["10.1.2.0/24"], "10.1.2.3").unwrap_err().contains("denied"));
    assert!(judge(Operator, &[], &["10.0.0.0/8"], "64:ff9b::10.1.2.3").unwrap_err().contains("denied"));
    assert!(judge(Operator, &[], &["2002::/16"], "2002:808:808::1").unwrap_err().contains("denied"));
    assert!(judge(Operator, &["0.0.0.0/0"], &["0.0.0.0/0", "::/0"], "8.8.8.8").is_err());
    // Nothing opens metadata services, nor a tunnel to what is not granted by itself.
    for trust in [Operator, Tenant] {
        let all = ["0.0.0.0/0", "::/0", "169.254.169.254", "fd00:ec2::/32"];
        for ip in ["169.254.169.254", "::ffff:169.254.169.254", "fd00:ec2::254", "2002:a9fe:a9fe::", "168.63.129.16"] {
            assert!(judge(trust, &all, &[], ip).unwrap_err().contains("no destination may reach"), "{ip}");
        }
    }
    assert!(
        judge(Tenant, &["64:ff9b:1::/48"], &[], "64:ff9b:1::10.0.0.1").unwrap_err().contains("stands for 10.0.0.1")
    );
    judge(Tenant, &["64:ff9b:1::/48"], &[], "64:ff9b:1::8.8.8.8").unwrap();
}

#[test]
fn refusals_name_address_range_rule_and_remedy() {
    let tenant = policy(Trust::Tenant);
    let error = tenant.judge_ip("::ffff:10.1.2.3".parse().unwrap()).unwrap_err().error().to_string();
    for part in ["::ffff:10.1.2.3", "10.0.0.0/8", "private network", "tenant", "addresses.allow"] {
        assert!(error.contains(part), "{error}: no {part}");
    }
    let error = policy(Trust::Operator).judge_ip("169.254.170.2".parse().unwrap()).unwrap_err().error().to_string();
    assert!(error.contains("169.254.0.0/16") && error.contains("metadata") && error.contains("no setting"), "{error}");
    let error = tenant.judge("8.8.8.8:22".parse().unwrap()).unwrap_err().error().to_string();
    assert!(error.contains("port 22") && error.contains("tenant_ports"), "{error}");
}

#[test]
fn tenants_use_tls_and_few_ports() {
    let tenant = policy(Trust::Tenant);
    let check = |policy: &AddressPolicy, url: &str| policy.check_url(&Url::parse(url).unwrap());
    for url in ["https://h.example/", "https://h.example:8443/", "https://h.example:80/", "https://h.example:1024/"] {
        check(&tenant, url).expect(url);
    }
    for url in ["http://h.example/", "https://h.example:22/", "https://h.example:1023/", "http://8.8.8.8/"] {
        check(&tenant, url).expect_err(url);
        check(&policy(Trust::Operator), url).expect(url);
    }
    let limits = TenantLimits { https_only: false, ports: vec![22..=22] };
    let own = AddressPolicy { tenant: limits, ..policy(Trust::Tenant) };
    check(&own, "http://h.example:22/").unwrap();
    check(&own, "https://h.example/").unwrap_err();
}

/// An answer that mixes addresses, and one that changes between two lookups: only what is granted is ever connected to.
#[test]
fn of_a_mixed_answer_the_private_addresses_are_dropped() {
    let answer: Vec<IpAddr> =
        ["10.0.0.1", "8.8.8.8", "127.0.0.1", "2606:4700::1", "169.254.169.254"].map(|t| t.parse().unwrap()).to_vec();
    let shown = |trust| {
        let granted = policy(trust).granted(&answer, 443).unwrap();
        granted.iter().map(|a| a.ip().to_string()).collect::<Vec<_>>()
    };
    assert_eq!(shown(Trust::Tenant), ["8.8.8.8", "2606:4700::1"]);
    assert_eq!(shown(Trust::Operator), ["10.0.0.1", "8.8.8.8", "127.0.0.1", "2606:4700::1"]);
    let refusal = policy(Trust::Tenant).granted(&answer[2..3], 443).unwrap_err();
    assert!(refusal.to_string().contains("127.0.0.0/8"), "{refusal}");
    assert_eq!(policy(Trust::Tenant).granted(&[], 443), Ok(vec![]));
}

#[test]
fn ranges_are_read_and_what_would_never_hold_is_refused() {
    for text in ["10.0.0.0/8", "10.1.2.3", "::/0", "2001:db8::/32", "fd00::1"] {
        parse_net(text).expect(text);
    }
    for (text, remedy) in [
        ("10.0.0.0/33", "10.0.0.0/8"),
        ("ten", "10.0.0.0/8"),
        ("", "10.0.0.0/8"),
        ("10.1.2.3/8", "10.0.0.0/8"),
        ("::ffff:10.0.0.0/104", "10.0.0.0/8"),
        ("64:ff9b::10.1.2.3", "10.1.2.3/32"),
    ] {
        let e = parse_net(text).expect_err(text);
        assert!(e.remedy_text().is_some_and(|r| r.contains(remedy)), "{e}");
    }
}

fn embeddings(ip: Ipv4Addr) -> Vec<Ipv6Addr> {
    let [a, b, c, d] = ip.octets().map(u16::from);
    let (high, low) = (a << 8 | b, c << 8 | d);
    let mut all = vec![
        ip.to_ipv6_mapped(),
        Ipv6Addr::new(0, 0, 0, 0, 0xffff, 0, high, low),
        Ipv6Addr::new(0x64, 0xff9b, 0, 0, 0, 0, high, low),
        Ipv6Addr::new(0x2002, high, low, 0, 0, 0, 0, 1),
        Ipv6Addr::new(0x2001, 0, 0x808, 0x808, 0x8000, 63000, !high, !low),
        Ipv6Addr::new(0x2001, 0, high, low, 0x8000, 63000, !0x808, !0x808),
        Ipv6Addr::new(0x2606, 0x4700, 0, 0, 0, 0x5efe, high, low),
        Ipv6Addr::new(0x2606, 0x4700, 0, 0, 0x200, 0x5efe, high, low),
    ];
    // Two of the compatible ones are addresses of IPv6.
    if u32::from(ip) > 1 {
        all.push(Ipv6Addr::new(0, 0, 0, 0, 0, 0, high, low));
    }
    all
}

/// RFC 6052, 2.2.
fn local_translations(ip: Ipv4Addr) -> [Ipv6Addr; 4] {
    let o = ip.octets();
    let place = |at: [usize; 4]| {
        let mut bytes = [0u8; 16];
        bytes[..6].copy_from_slice(&[0, 0x64, 0xff, 0x9b, 0, 1]);
        at.iter().zip(o).for_each(|(i, byte)| bytes[*i] = byte);
        Ipv6Addr::from(bytes)
    };
    [place([6, 7, 9, 10]), place([7, 9, 10, 11]), place([9, 10, 11, 12]), place([12, 13, 14, 15])]
}

fn addresses() -> impl Strategy<Value = Ipv4Addr> {
    let special = prop::sample::select(
        RANGES
            .iter()
            .filter_map(|r| match r.net {
                IpNet::V4(net) => Some(net),
                IpNet::V6(_) => None,
            })
            .collect::<Vec<_>>(),
    );
    prop_oneof![
        any::<u32>().prop_map(Ipv4Addr::from),
        (special, any::<u32>())
            .prop_map(|(net, n)| Ipv4Addr::from(u32::from(net.network()) | n & u32::from(net.hostmask()))),
    ]
}

proptest! {
    #[test]
    fn an_embedded_address_has_the_verdict_of_the_address(ip in addresses()) {
        for trust in [Trust::Operator, Trust::Tenant] {
            let policy = AddressPolicy { deny: nets(&["9.0.0.0/8"]), allow: nets(&["10.7.0.0/16"]), ..policy(trust) };
            let verdict = policy.judge_ip(ip.into()).is_ok();
            for form in embeddings(ip) {
                prop_assert_eq!(policy.judge_ip(form.into()).is_ok(), verdict, "{} as {} for {:?}", ip, form, trust);
            }
            // Where the address stands in these is the network's choice: never more is granted than to the address.
            for form in local_translations(ip) {
                prop_assert!(verdict || policy.judge_ip(form.into()).is_err(), "{} as {} for {:?}", ip, form, trust);
            }
        }
    }

    #[test]
    fn what_is_refused_to_operators_is_refused_to_tenants(bits in any::<u128>()) {
        let ip = IpAddr::from(Ipv6Addr::from(bits));
        prop_assert!(policy(Trust::Operator).judge_ip(ip).is_ok() || policy(Trust::Tenant).judge_ip(ip).is_err());
    }
}
