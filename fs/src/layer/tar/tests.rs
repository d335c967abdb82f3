//! Whole archives, written here block by block.

use super::*;

/// A header block with a right checksum.
fn header(name: &[u8], flag: u8, size: u64) -> Vec<u8> {
    let mut block = vec![0; 512];
    block[..name.len()].copy_from_slice(name);
    block[100..108].copy_from_slice(b"0000644\0");
    block[108..116].copy_from_slice(b"0000000\0");
    block[116..124].copy_from_slice(b"0000000\0");
    block[124..136].copy_from_slice(format!("{size:011o}\0").as_bytes());
    block[136..148].copy_from_slice(b"00000000000\0");
    block[156] = flag;
    block[257..265].copy_from_slice(b"ustar\x0000");
    block[329..337].copy_from_slice(b"0000000\0");
    block[337..345].copy_from_slice(b"0000000\0");
    seal(&mut block);
    block
}

fn seal(block: &mut [u8]) {
    block[148..156].fill(b' ');
    let sum: u32 = block.iter().map(|b| u32::from(*b)).sum();
    block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
}

fn padded(body: &[u8]) -> Vec<u8> {
    let mut body = body.to_vec();
    body.resize(body.len().next_multiple_of(512), 0);
    body
}

fn file(name: &[u8], body: &[u8]) -> Vec<u8> {
    [header(name, b'0', body.len() as u64), padded(body)].concat()
}

fn pax(records: &[(&str, &str)]) -> Vec<u8> {
    let body: String = records
        .iter()
        .map(|(key, value)| {
            let rest = format!(" {key}={value}\n");
            let digits = (1..5).find(|d| (rest.len() + d).to_string().len() == *d).unwrap();
            format!("{}{rest}", rest.len() + digits)
        })
        .collect();
    [header(b"pax", b'x', body.len() as u64), padded(body.as_bytes())].concat()
}

fn long(flag: u8, text: &[u8]) -> Vec<u8> {
    [header(b"././@LongLink", flag, text.len() as u64), padded(text)].concat()
}

/// All entries with their stored bytes.
fn read(archive: &[u8]) -> Result<Vec<(Entry, Vec<u8>)>> {
    let limits = Limits::default();
    let mut archive = Archive::new(archive, &limits);
    let mut all = Vec::new();
    while let Some(entry) = archive.next_entry()? {
        let mut body = Vec::new();
        archive.read_body::<Error>(|piece| {
            body.extend_from_slice(piece);
            Ok(())
        })?;
        all.push((entry, body));
    }
    Ok(all)
}

fn one(archive: &[u8]) -> (Entry, Vec<u8>) {
    let mut all = read(archive).unwrap();
    assert_eq!(all.len(), 1);
    all.remove(0)
}

fn error(parts: &[Vec<u8>]) -> String {
    read(&parts.concat()).unwrap_err().to_string()
}

const END: [u8; 1024] = [0; 1024];

#[test]
fn files_with_and_without_an_end() {
    let body = vec![7; 700];
    let two = [file(b"a", b"1"), file(b"b", &body)].concat();
    for end in [&[][..], &END[..512], &END, &[&END[..], b"junk"].concat()] {
        let all = read(&[&two, end].concat()).unwrap();
        let names: Vec<_> = all.iter().map(|(entry, _)| entry.path.as_slice()).collect();
        assert_eq!(names, [b"a", b"b"]);
        assert_eq!(all[1].1, body);
    }
}

#[test]
fn a_body_that_nobody_reads_is_skipped() {
    let bytes = [file(b"a", &[7; 700]), file(b"b", b"x")].concat();
    let limits = Limits::default();
    let mut archive = Archive::new(&bytes[..], &limits);
    archive.next_entry().unwrap().unwrap();
    assert_eq!(archive.next_entry().unwrap().unwrap().path, b"b");
}

#[test]
fn one_size_counts_from_the_extension_on() {
    // The header says 0; what a second reading would take for an entry is the body.
    let hidden = file(b"smuggled", b"");
    let size = hidden.len().to_string();
    let archive = [pax(&[("size", &size)]), header(b"a", b'0', 0), hidden.clone(), END.to_vec()];
    let (entry, body) = one(&archive.concat());
    assert_eq!((entry.path, entry.size), (b"a".to_vec(), 512));
    assert_eq!(body, hidden);
}

#[test]
fn links_devices_and_directories_have_no_body() {
    for flag in b"123456" {
        let all = read(&[header(b"a", *flag, 5), file(b"b", b"")].concat()).unwrap();
        assert_eq!(all.len(), 2, "{}", *flag as char);
        assert_eq!(all[0].0.size, 0);
    }
    assert_eq!(one(&header(b"a/", 0, 0)).0.kind, Kind::Directory);
    assert_eq!(one(&header(b"a", 0, 0)).0.kind, Kind::File);
    assert_eq!(one(&header(b"a", b'7', 0)).0.kind, Kind::File);
}

#[test]
fn long_names_of_both_kinds() {
    let name = vec![b'n'; 300];
    let link = vec![b'l'; 200];
    let archive =
        [long(b'L', &[&name[..], b"\0\0"].concat()), long(b'K', &link), header(b"s", b'2', 0)];
    let (entry, _) = one(&archive.concat());
    assert_eq!((entry.path, entry.link), (name.clone(), link));
    let both = [long(b'L', &name), pax(&[("path", "pax")]), header(b"s", b'0', 0)];
    assert_eq!(one(&both.concat()).0.path, b"pax");
    assert!(
        error(&[long(b'L', &name), long(b'L', &name), header(b"s", b'0', 0)])
            .contains("two long names")
    );
    assert!(error(&[pax(&[]), pax(&[]), header(b"s", b'0', 0)]).contains("two extended headers"));
}

#[test]
fn a_global_header_is_checked_and_has_no_effect() {
    let mut global = pax(&[("path", "evil"), ("uid", "7")]);
    global[156] = b'g';
    seal(&mut global[..512]);
    let (entry, _) = one(&[global.clone(), file(b"a", b"")].concat());
    assert_eq!((entry.path, entry.uid), (b"a".to_vec(), 0));
    global[512] = b'x';
    assert!(read(&[global, file(b"a", b"")].concat()).is_err());
}

#[test]
fn sparse_files_of_three_formats() {
    let map = vec![Segment { offset: 0, length: 3 }, Segment { offset: 4096, length: 2 }];
    let v00 = pax(&[
        ("GNU.sparse.size", "5000"),
        ("GNU.sparse.numblocks", "2"),
        ("GNU.sparse.offset", "0"),
        ("GNU.sparse.numbytes", "3"),
        ("GNU.sparse.offset", "4096"),
        ("GNU.sparse.numbytes", "2"),
    ]);
    let v01 = pax(&[
        ("GNU.sparse.major", "0"),
        ("GNU.sparse.minor", "1"),
        ("GNU.sparse.name", "real"),
        ("GNU.sparse.size", "5000"),
        ("GNU.sparse.map", "0,3,4096,2"),
    ]);
    let v10 = pax(&[
        ("GNU.sparse.major", "1"),
        ("GNU.sparse.minor", "0"),
        ("GNU.sparse.name", "real"),
        ("GNU.sparse.realsize", "5000"),
    ]);
    let body = [padded(b"2\n0\n3\n4096\n2\n"), b"abcde".to_vec()].concat();
    for (extension, body, name) in
        [(v00, b"abcde".to_vec(), "a"), (v01, b"abcde".to_vec(), "real"), (v10, body, "real")]
    {
        let (entry, stored) = one(&[extension, file(b"a", &body)].concat());
        assert_eq!(entry.path, name.as_bytes());
        assert_eq!((entry.size, entry.sparse), (5000, Some(map.clone())));
        assert_eq!(stored, b"abcde");
    }
}

#[test]
fn what_is_refused_is_named() {
    let ext = |records: &[(&str, &str)]| vec![pax(records), file(b"a", b"")];
    let mut negative = header(b"a", b'0', 0);
    negative[124..136].fill(0xff);
    seal(&mut negative);
    let mut ids = header(b"a", b'0', 0);
    ids[108..116].copy_from_slice(b"\x80\0\0\x01\0\0\0\0");
    seal(&mut ids);
    for (archive, wanted) in [
        (vec![header(b"a", b'S', 0)], "\"a\": a sparse file in the old GNU format"),
        (vec![header(b"a", b'Z', 0)], "\"a\": an entry of the unknown type 'Z'"),
        (vec![negative], "size: a negative number"),
        (vec![ids], "\"a\": uid: 4294967296 is no user or group id"),
        (vec![vec![1; 512]], "checksum: "),
        (vec![header(b"a", b'0', 9)], "the archive ends in the body"),
        (vec![header(b"a", b'0', 0)[..100].to_vec()], "ends in the middle of a block"),
        (vec![pax(&[])], "an extended header without an entry"),
        (vec![END[..512].to_vec(), file(b"a", b"")], "a header behind a block of zeros"),
        (vec![long(b'L', &vec![b'n'; (1 << 20) + 1])], "extended-bytes = 1048576"),
        (ext(&[("GNU.sparse.major", "2")]), "sparse format 2.0 is unknown"),
        (
            ext(&[("GNU.sparse.map", "0,1"), ("GNU.sparse.size", "9")]),
            "\"a\": sparse map: it speaks of 1 bytes and 0 are stored",
        ),
        (ext(&[("GNU.sparse.map", "")]), "a sparse map without a size"),
    ] {
        let text = error(&archive);
        assert!(text.contains(wanted), "{text:?} lacks {wanted:?}");
    }
}

#[test]
fn a_size_that_is_only_claimed_reserves_nothing() {
    let archive = [pax(&[("size", "9223372036854775807")]), header(b"a", b'0', 0)].concat();
    assert!(error(&[archive]).contains("ends in the body"));
    let long = header(b"././@LongLink", b'L', 1 << 20);
    assert!(error(&[long]).contains("ends in the body"));
}

#[test]
fn entries_are_counted_with_their_extensions() {
    let limits = Limits { entries: 2, ..Limits::default() };
    let bytes = [file(b"a", b""), pax(&[]), file(b"b", b"")].concat();
    let mut archive = Archive::new(&bytes[..], &limits);
    archive.next_entry().unwrap();
    let text = archive.next_entry().unwrap_err().to_string();
    assert_eq!(text, "more than the limit entries = 2");
}
