//! Names and numbers of signals, as image configs and stop annotations give
//! them: the name in any case, with or without `SIG`, or a number.

/// The first real-time signal that C libraries leave to programs.
const RTMIN: i32 = 34;
/// The last one.
const RTMAX: i32 = 64;

/// SIGTERM.
pub const TERM: i32 = 15;
/// SIGKILL.
pub const KILL: i32 = 9;

/// Whether an image may have this for its stop signal: not what cannot be
/// caught, and none of job control's, whose meaning is another.
pub fn may_stop(number: i32) -> bool {
    const CHLD: i32 = 17;
    const URG: i32 = 23;
    number != KILL && !(CHLD..=URG).contains(&number)
}

/// Linux numbers on x86-64 and arm64 (signal(7)); the first name of a number
/// is the one that is printed.
const NAMES: [(&str, i32); 34] = [
    ("HUP", 1),
    ("INT", 2),
    ("QUIT", 3),
    ("ILL", 4),
    ("TRAP", 5),
    ("ABRT", 6),
    ("IOT", 6),
    ("BUS", 7),
    ("FPE", 8),
    ("KILL", 9),
    ("USR1", 10),
    ("SEGV", 11),
    ("USR2", 12),
    ("PIPE", 13),
    ("ALRM", 14),
    ("TERM", 15),
    ("STKFLT", 16),
    ("CHLD", 17),
    ("CLD", 17),
    ("CONT", 18),
    ("STOP", 19),
    ("TSTP", 20),
    ("TTIN", 21),
    ("TTOU", 22),
    ("URG", 23),
    ("XCPU", 24),
    ("XFSZ", 25),
    ("VTALRM", 26),
    ("PROF", 27),
    ("WINCH", 28),
    ("IO", 29),
    ("POLL", 29),
    ("PWR", 30),
    ("SYS", 31),
];

/// The numbering of CRI's `Signal`: the names without `SIG` in the order of the
/// alphabet, from 1 on (k8s.io/cri-api, pkg/apis/runtime/v1/api.proto).
const CRI_NAMES: [&str; 34] = [
    "ABRT", "ALRM", "BUS", "CHLD", "CLD", "CONT", "FPE", "HUP", "ILL", "INT", "IO", "IOT", "KILL",
    "PIPE", "POLL", "PROF", "PWR", "QUIT", "SEGV", "STKFLT", "STOP", "SYS", "TERM", "TRAP", "TSTP",
    "TTIN", "TTOU", "URG", "USR1", "USR2", "VTALRM", "WINCH", "XCPU", "XFSZ",
];

/// The number of a signal that CRI names by its own.
pub fn of_cri(code: i32) -> Option<i32> {
    let at = usize::try_from(code.checked_sub(1)?).ok()?;
    match CRI_NAMES.get(at) {
        Some(name) => number(name),
        // The real-time signals follow, one by one.
        None => Some(code - 1).filter(|number| (RTMIN..=RTMAX).contains(number)),
    }
}

/// The number of a signal.
pub fn number(text: &str) -> Option<i32> {
    if let Ok(number) = text.parse::<i32>() {
        return (1..=RTMAX).contains(&number).then_some(number);
    }
    let upper = text.to_ascii_uppercase();
    let name = upper.strip_prefix("SIG").unwrap_or(&upper);
    if let Some((_, number)) = NAMES.iter().find(|(known, _)| *known == name) {
        return Some(*number);
    }
    let (base, sign, rest) = match (name.strip_prefix("RTMIN"), name.strip_prefix("RTMAX")) {
        (Some(rest), _) => (RTMIN, 1, rest.strip_prefix('+').unwrap_or(rest)),
        (_, Some(rest)) => (RTMAX, -1, rest.strip_prefix('-').unwrap_or(rest)),
        _ => return None,
    };
    let plain = rest.is_empty() && (name == "RTMIN" || name == "RTMAX");
    let digits = !rest.is_empty() && rest.bytes().all(|b| b.is_ascii_digit());
    let marked = name.contains(['+', '-']);
    let offset = if plain {
        0
    } else if digits && marked {
        rest.parse::<i32>().ok()?
    } else {
        return None;
    };
    let number = base + sign * offset;
    (RTMIN..=RTMAX).contains(&number).then_some(number)
}

/// The name of a signal, with `SIG`.
pub fn name(number: i32) -> String {
    match NAMES.iter().find(|(_, known)| *known == number) {
        Some((name, _)) => format!("SIG{name}"),
        None if number == RTMIN => "SIGRTMIN".to_owned(),
        None if number > RTMIN => format!("SIGRTMIN+{}", number - RTMIN),
        None => number.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_numbers() {
        for (text, expected) in [
            ("SIGTERM", Some(15)),
            ("term", Some(15)),
            ("Quit", Some(3)),
            ("SIGRTMIN", Some(34)),
            ("SIGRTMIN+3", Some(37)),
            ("RTMAX-14", Some(50)),
            ("SIGRTMAX", Some(64)),
            ("SIGCLD", Some(17)),
            ("28", Some(28)),
            ("0", None),
            ("65", None),
            ("-1", None),
            ("SIG", None),
            ("", None),
            ("SIGRTMIN+31", None),
            ("SIGRTMIN3", None),
            ("SIGRTMIN+", None),
            ("SIGRTMAX+1", None),
            ("SIGNAL", None),
        ] {
            assert_eq!(number(text), expected, "{text:?}");
        }
        for n in 1..=31 {
            assert_eq!(number(&name(n)), Some(n));
        }
        assert_eq!(number(&name(37)), Some(37));
    }

    #[test]
    fn cri_has_numbers_of_its_own() {
        for (code, expected) in [
            (0, None),
            (1, Some(6)),
            (8, Some(1)),
            (10, Some(2)),
            (13, Some(9)),
            (18, Some(3)),
            (23, Some(15)),
            (29, Some(10)),
            (30, Some(12)),
            (34, Some(25)),
            (35, Some(34)),
            (65, Some(64)),
            (66, None),
            (-1, None),
            (i32::MIN, None),
        ] {
            assert_eq!(of_cri(code), expected, "{code}");
        }
    }
}
