use libc::{MOUNT_ATTR_NODEV, MOUNT_ATTR_NODIRATIME, MOUNT_ATTR_NOEXEC, MOUNT_ATTR_NOSUID};
use libc::{MOUNT_ATTR_NOSYMFOLLOW, MS_DIRSYNC, MS_LAZYTIME, MS_MANDLOCK, MS_SILENT};
use proptest::prelude::*;

use super::*;
use crate::ErrorKind;

const RO: u64 = MOUNT_ATTR_RDONLY;
const ATIME: u64 = MOUNT_ATTR__ATIME;
const NOATIME: u64 = MOUNT_ATTR_NOATIME;
const STRICT: u64 = MOUNT_ATTR_STRICTATIME;

fn ok(options: &[&str]) -> MountOptions {
    parse(options).unwrap()
}

/// Option list; what it sets and clears on the mount; the same recursively.
type AttrRow = (&'static [&'static str], (u64, u64), (u64, u64));

#[test]
fn attributes_of_one_mount_and_of_a_tree() {
    let table: &[AttrRow] = &[
        (&["defaults"], (0, 0), (0, 0)),
        (&["ro"], (RO, 0), (0, 0)),
        (&["rw"], (0, RO), (0, 0)),
        (&["ro", "rw"], (0, RO), (0, 0)),
        (&["nosuid", "nodev", "noexec"], (2 | 4 | 8, 0), (0, 0)),
        (&["nosuid", "suid"], (0, MOUNT_ATTR_NOSUID), (0, 0)),
        (&["dev", "nodev"], (MOUNT_ATTR_NODEV, 0), (0, 0)),
        (&["exec"], (0, MOUNT_ATTR_NOEXEC), (0, 0)),
        (&["nodiratime"], (MOUNT_ATTR_NODIRATIME, 0), (0, 0)),
        (&["nodiratime", "diratime"], (0, MOUNT_ATTR_NODIRATIME), (0, 0)),
        (&["nosymfollow"], (MOUNT_ATTR_NOSYMFOLLOW, 0), (0, 0)),
        (&["symfollow"], (0, MOUNT_ATTR_NOSYMFOLLOW), (0, 0)),
        (&["noatime"], (NOATIME, ATIME), (0, 0)),
        (&["relatime"], (0, ATIME), (0, 0)),
        (&["strictatime"], (STRICT, ATIME), (0, 0)),
        (&["noatime", "strictatime"], (STRICT, ATIME), (0, 0)),
        (&["strictatime", "noatime"], (NOATIME, ATIME), (0, 0)),
        (&["atime"], (0, ATIME), (0, 0)),
        (&["noatime", "atime"], (0, ATIME), (0, 0)),
        (&["strictatime", "atime"], (STRICT, ATIME), (0, 0)),
        (&["nostrictatime"], (0, ATIME), (0, 0)),
        (&["noatime", "nostrictatime"], (NOATIME, ATIME), (0, 0)),
        (&["norelatime"], (0, 0), (0, 0)),
        (&["relatime", "norelatime"], (0, 0), (0, 0)),
        (&["noatime", "norelatime"], (NOATIME, ATIME), (0, 0)),
        (&["rro"], (0, 0), (RO, 0)),
        (&["rro", "rrw"], (0, 0), (0, RO)),
        (&["rro", "rw"], (0, RO), (RO, 0)),
        (&["rnosuid", "rnodev", "rnoexec"], (0, 0), (2 | 4 | 8, 0)),
        (&["rsuid", "rdev", "rexec"], (0, 0), (0, 2 | 4 | 8)),
        (&["rnodiratime"], (0, 0), (MOUNT_ATTR_NODIRATIME, 0)),
        (&["rdiratime"], (0, 0), (0, MOUNT_ATTR_NODIRATIME)),
        (&["rnosymfollow"], (0, 0), (MOUNT_ATTR_NOSYMFOLLOW, 0)),
        (&["rsymfollow"], (0, 0), (0, MOUNT_ATTR_NOSYMFOLLOW)),
        (&["rnoatime"], (0, 0), (NOATIME, ATIME)),
        (&["ratime"], (0, 0), (0, ATIME)),
        (&["rrelatime"], (0, 0), (0, ATIME)),
        (&["rnorelatime"], (0, 0), (0, 0)),
        (&["rstrictatime"], (0, 0), (STRICT, ATIME)),
        (&["rstrictatime", "rnostrictatime"], (0, 0), (0, ATIME)),
    ];
    for (options, attr, rec) in table {
        let got = ok(options);
        assert_eq!((got.attr_set, got.attr_clr), *attr, "{options:?}");
        assert_eq!((got.rec_set, got.rec_clr), *rec, "{options:?} recursively");
        assert!(got.data.is_empty(), "{options:?}");
    }
}

#[test]
fn superblock_flags() {
    let table: &[(&[&str], u64, u64)] = &[
        (&["ro"], libc::MS_RDONLY, 0),
        (&["rw"], 0, libc::MS_RDONLY),
        (&["rro"], 0, 0),
        (&["sync"], libc::MS_SYNCHRONOUS, 0),
        (&["sync", "async"], 0, libc::MS_SYNCHRONOUS),
        (&["dirsync", "mand", "lazytime"], MS_DIRSYNC | MS_MANDLOCK | MS_LAZYTIME, 0),
        (&["nomand", "nolazytime"], 0, MS_MANDLOCK | MS_LAZYTIME),
        (&["silent"], MS_SILENT, 0),
        (&["silent", "loud"], 0, MS_SILENT),
        (&["iversion"], libc::MS_I_VERSION, 0),
        (&["noiversion"], 0, libc::MS_I_VERSION),
        (&["acl"], libc::MS_POSIXACL, 0),
        (&["acl", "noacl"], 0, libc::MS_POSIXACL),
    ];
    for (options, set, clear) in table {
        let sb = ok(options).sb;
        assert_eq!((u64::from(sb.set), u64::from(sb.clear)), (*set, *clear), "{options:?}");
    }
}

#[test]
fn actions() {
    use PropagationKind::{Private, Shared, Slave, Unbindable};
    assert_eq!(ok(&["bind"]).bind, Some(Bind { recursive: false }));
    assert_eq!(ok(&["rbind"]).bind, Some(Bind { recursive: true }));
    assert_eq!(ok(&["rbind", "bind"]).bind, Some(Bind { recursive: true }));
    assert_eq!(ok(&["ro"]).bind, None);
    assert!(ok(&["bind", "remount"]).remount);
    assert!(ok(&["tmpcopyup"]).tmpcopyup);
    assert_eq!(ok(&["idmap"]).idmap, Some(IdMap { recursive: false }));
    assert_eq!(ok(&["idmap", "ridmap"]).idmap, Some(IdMap { recursive: true }));
    let all = ["shared", "rshared", "slave", "rslave", "private", "rprivate", "unbindable"];
    let kinds = [Shared, Shared, Slave, Slave, Private, Private, Unbindable];
    let got = ok(&all).propagation;
    assert_eq!(got.len(), all.len());
    for ((name, kind), got) in all.iter().zip(kinds).zip(got) {
        assert_eq!(got, Propagation { kind, recursive: name.starts_with('r') }, "{name}");
    }
    let last = Propagation { kind: Unbindable, recursive: true };
    assert_eq!(ok(&["runbindable"]).propagation, [last]);
}

#[test]
fn the_rest_is_data_in_order() {
    let data = |list: &[(&str, Option<&str>)]| -> Vec<DataOption> {
        list.iter().map(|(k, v)| ((*k).to_owned(), v.map(str::to_owned))).collect()
    };
    for (options, want) in [
        (
            &["size=64k", "nosuid", "mode=755"][..],
            &[("size", Some("64k")), ("mode", Some("755"))][..],
        ),
        (&["newinstance,ptmxmode=0666"], &[("newinstance", None), ("ptmxmode", Some("0666"))]),
        (&["name=a=b"], &[("name", Some("a=b"))]),
        (&["k="], &[("k", Some(""))]),
        (&["ro=1"], &[("ro", Some("1"))]),
        (&["", ",", "xattr,"], &[("xattr", None)]),
        (&["lowerdir=/a\\,b:/c"], &[("lowerdir", Some("/a\\,b:/c"))]),
        (&["context=\"u:r:t:s0:c1,c2\",noexec"], &[("context", Some("u:r:t:s0:c1,c2"))]),
        (&["noexec,rootcontext=\"a,b\""], &[("rootcontext", Some("a,b"))]),
        (&["context=u:r:t:s0"], &[("context", Some("u:r:t:s0"))]),
        (&["name=\"a,b\""], &[("name", Some("\"a")), ("b\"", None)]),
    ] {
        assert_eq!(ok(options).data, data(want), "{options:?}");
    }
    assert_eq!(ok(&["context=\"a,b\",noexec"]).attr_set, MOUNT_ATTR_NOEXEC);
}

#[test]
fn bad_options_are_named() {
    for (option, text) in [
        ("si\0ze=1", "mount option \"si\\0ze=1\": contains a NUL byte"),
        ("=755", "mount option \"=755\": value without a name"),
        ("context=\"a,b", "mount option \"context=\\\"a,b\": quote does not end"),
    ] {
        let e = parse(&["ro", option]).unwrap_err();
        assert_eq!((e.kind(), e.to_string().as_str()), (ErrorKind::Invalid, text));
    }
}

#[test]
fn every_known_name_is_found_and_none_becomes_data() {
    let names: Vec<_> = known_options().collect();
    assert!(names.windows(2).all(|pair| pair[0] < pair[1]), "the table is not sorted");
    for name in &names {
        assert!(ok(&[name]).data.is_empty(), "{name}");
        assert_eq!(ok(&[&format!("{name}=x")]).data.len(), 1, "{name}=x");
    }
    // The runtime specification's list; runtimes MUST know each of these.
    for must in [
        "async",
        "atime",
        "bind",
        "defaults",
        "dev",
        "diratime",
        "dirsync",
        "exec",
        "iversion",
        "lazytime",
        "loud",
        "mand",
        "noatime",
        "nodev",
        "nodiratime",
        "noexec",
        "noiversion",
        "nolazytime",
        "nomand",
        "norelatime",
        "nostrictatime",
        "nosuid",
        "nosymfollow",
        "private",
        "ratime",
        "rbind",
        "rdev",
        "rdiratime",
        "relatime",
        "remount",
        "rexec",
        "rnoatime",
        "rnodev",
        "rnodiratime",
        "rnoexec",
        "rnorelatime",
        "rnostrictatime",
        "rnosuid",
        "rnosymfollow",
        "ro",
        "rprivate",
        "rrelatime",
        "rro",
        "rrw",
        "rshared",
        "rslave",
        "rstrictatime",
        "rsuid",
        "rsymfollow",
        "runbindable",
        "rw",
        "shared",
        "silent",
        "slave",
        "strictatime",
        "suid",
        "symfollow",
        "sync",
        "tmpcopyup",
        "unbindable",
        "idmap",
        "ridmap",
    ] {
        assert!(names.contains(&must), "{must} is not known");
    }
}

/// Pairs that exclude each other, with the attribute they are about.
const PAIRS: &[(&str, &str, u64)] = &[
    ("ro", "rw", RO),
    ("nosuid", "suid", MOUNT_ATTR_NOSUID),
    ("nodev", "dev", MOUNT_ATTR_NODEV),
    ("noexec", "exec", MOUNT_ATTR_NOEXEC),
    ("nodiratime", "diratime", MOUNT_ATTR_NODIRATIME),
    ("nosymfollow", "symfollow", MOUNT_ATTR_NOSYMFOLLOW),
];

fn any_option() -> impl Strategy<Value = String> {
    prop_oneof![
        3 => prop::sample::select(known_options().collect::<Vec<_>>()).prop_map(str::to_owned),
        1 => "[a-z]{1,5}(=[a-z0-9/:]{0,8})?",
    ]
}

proptest! {
    #[test]
    fn the_last_of_a_pair_counts(options in prop::collection::vec(any_option(), 0..24)) {
        let got = parse(&options).unwrap();
        for (on, off, bit) in PAIRS {
            let last = options.iter().rev().find(|o| o == on || o == off);
            prop_assert_eq!(got.attr_set & bit != 0, last.is_some_and(|o| o == on), "{}", on);
            prop_assert_eq!(got.attr_clr & bit != 0, last.is_some_and(|o| o == off), "{}", off);
        }
        // mount_setattr refuses a part of the access-time field and more than one mode in it.
        for (set, clr) in [(got.attr_set, got.attr_clr), (got.rec_set, got.rec_clr)] {
            prop_assert!(clr & ATIME == 0 || clr & ATIME == ATIME);
            prop_assert!([0, NOATIME, STRICT].contains(&(set & ATIME)));
            prop_assert_eq!(set & clr & !ATIME, 0);
        }
        prop_assert_eq!(got.sb.set & got.sb.clear, 0);
    }

    #[test]
    fn a_list_and_its_comma_string_are_the_same(
        options in prop::collection::vec(any_option(), 0..24),
    ) {
        prop_assert_eq!(parse(&options).unwrap(), parse(&[options.join(",")]).unwrap());
    }

    #[test]
    fn unknown_words_survive_in_order(words in prop::collection::vec("x-[a-z]{1,6}=[a-z,\"]{0,3}", 0..8)) {
        let words: Vec<_> = words.iter().map(|w| w.replace(',', ".")).collect();
        let back: Vec<_> = ok(&words.iter().map(String::as_str).collect::<Vec<_>>())
            .data
            .into_iter()
            .map(|(k, v)| format!("{k}={}", v.unwrap()))
            .collect();
        prop_assert_eq!(back, words);
    }

    #[test]
    fn no_input_panics(options in prop::collection::vec("\\PC{0,20}|[a-z=,\"\\\\]{0,20}", 0..6)) {
        let _ = parse(&options);
    }
}
