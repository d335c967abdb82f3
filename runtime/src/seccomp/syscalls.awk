# Makes syscalls.rs: the names and numbers of the system calls of x86-64, i386
# and x32, which are facts of the kernel's interface.
#
#   LC_ALL=C awk -f syscalls.awk unistd_64.h unistd_32.h unistd_x32.h > syscalls.rs
#
# takes the kernel's installed headers (package linux-libc-dev: asm/unistd_*.h).
# The constants of the crate linux-raw-sys (src/{x86_64,x86,x32}/general.rs),
# which come from the same headers, are understood as well.
FNR == 1 { column++ }
/(#define|const) __NR_/ {
    line = $0
    sub(/.*__NR_/, "", line)
    match(line, /^[a-z0-9_]+/)
    name = substr(line, 1, RLENGTH)
    line = substr(line, RLENGTH + 1)
    sub(/u32|__X32_SYSCALL_BIT/, "", line)
    if (!match(line, /[0-9]+/)) next
    number = substr(line, RSTART, RLENGTH) + 0
    # The bit of x32 is left out; the table says by its column which call it is.
    if (number >= 1073741824) number -= 1073741824
    numbers[name, column] = number
    names[name] = 1
}
function cell(name, column) {
    return ((name, column) in numbers) ? numbers[name, column] : "NONE"
}
END {
    for (name in names) list[++count] = name
    for (i = 2; i <= count; i++) {
        name = list[i]
        for (j = i - 1; j > 0 && list[j] > name; j--) list[j + 1] = list[j]
        list[j + 1] = name
    }
    print "//! Names and numbers of system calls, sorted by name; made by syscalls.awk."
    print ""
    print "use super::call::{Call, NONE};"
    print ""
    print "/// x86-64, i386 and x32 (without its bit)."
    print "#[rustfmt::skip]"
    printf "pub(super) static CALLS: [Call; %d] = [\n", count
    for (i = 1; i <= count; i++) {
        name = list[i]
        printf "    Call::new(\"%s\", %s, %s, %s),\n", name, cell(name, 1), cell(name, 2), cell(name, 3)
    }
    print "];"
}
