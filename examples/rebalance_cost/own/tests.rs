use std::fs;

use apportion::ring::RingError;
use clap::Parser;

use super::{input::*, *};

#[derive(Parser)]
struct Command {
    #[command(flatten)]
    own: OwnArgs,
}

fn args(arguments: &[&str]) -> OwnArgs {
    let always = ["rebalance_cost", "--keys", "k", "--members", "m"];
    Command::try_parse_from(always.iter().chain(arguments)).unwrap().own
}

/// A file that is gone when the test is over.
struct Temporary(PathBuf);

impl Temporary {
    fn new(name: &str, content: impl AsRef<[u8]>) -> Temporary {
        let file = std::env::temp_dir().join(format!("rebalance_cost-{}-{name}.txt", std::process::id()));
        fs::write(&file, content).unwrap();
        Temporary(file)
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}

fn members(name: &str, content: &str) -> Members {
    Members::read(&Temporary::new(name, content).0).unwrap()
}

fn keys() -> Vec<String> {
    (0..1000).map(|number| format!("alarm-{number}")).collect()
}

#[test]
fn a_leave_moves_the_keys_of_the_leaver_and_no_others() {
    let members = members("leave", "a\nb\r\n\n  c 2\n");
    let before = members.ring(args(&[]).empty_ring()).unwrap();
    let after = members.change(&before, &["b".into()], &[]).unwrap();
    let keys = keys();
    let outcome = Outcome::of(&keys, &before, &after);

    let of_b: Vec<&String> = keys.iter().filter(|key| before.is_owner("b", *key)).collect();
    assert!(!of_b.is_empty());
    assert_eq!(outcome.moves.iter().map(|moved| moved.key).collect::<Vec<_>>(), of_b);
    for moved in &outcome.moves {
        assert_eq!((moved.from, moved.to), (Some("b"), after.owner(moved.key)));
    }
    assert_eq!(outcome.between, 0);
    assert!((outcome.ideal - 0.25).abs() < 1e-9, "a quarter of the weight leaves");
    assert_eq!(outcome.pairs().iter().map(|pair| pair.keys).sum::<usize>(), of_b.len());
    let b = outcome.shares["b"];
    assert_eq!((b.before.keys, b.after.keys, b.after.weight), (of_b.len(), 0, None));
    let csv = moves_csv(&outcome.moves).unwrap();
    assert_eq!(csv.lines().count(), 1 + of_b.len());
    assert!(csv.starts_with(&format!("key,from,to\n{},b,", of_b[0])));
}

#[test]
fn leaves_and_joins_at_once_move_nothing_between_members_that_stay() {
    let members = members("both", "a\nb\nc\nd\n");
    let args = args(&["--leave", "b", "--join", "e 3", "--join", "f", "--replicas", "50"]);
    let before = members.ring(args.empty_ring()).unwrap();
    let after = members.change(&before, &args.leave, &args.join).unwrap();
    assert_eq!((after.weight("e"), after.weight("f"), after.replicas()), (Some(3), Some(1), 50));
    let keys = keys();
    let outcome = Outcome::of(&keys, &before, &after);
    assert_eq!(outcome.between, 0);
    let is_new = |member: Option<&str>| member == Some("e") || member == Some("f");
    assert!(outcome.moves.iter().all(|moved| moved.from == Some("b") || is_new(moved.to)));
    assert!(outcome.moves.iter().any(|moved| is_new(moved.to)));
    let balance = outcome.balance(|share| share.after).unwrap();
    assert_eq!(balance.members, 5);
    assert!(balance.least < 1.0 && 1.0 < balance.most && balance.most < 1.6, "{balance:?}");
}

#[test]
fn when_the_last_member_leaves_its_keys_are_nobodys() {
    let members = members("last", "a\n");
    let before = members.ring(args(&[]).empty_ring()).unwrap();
    let after = members.change(&before, &["a".into()], &[]).unwrap();
    let keys = keys();
    let outcome = Outcome::of(&keys, &before, &after);
    assert!(outcome.moves.iter().all(|moved| moved.to.is_none()) && outcome.moves.len() == 1000);
    assert_eq!(outcome.balance(|share| share.after), None);
}

#[test]
fn a_label_of_python_gives_another_ring() {
    let members = members("label", "a\nb\n");
    let owner = |label: &str| {
        let ring = members.ring(args(&["--label", label]).empty_ring()).unwrap();
        keys().iter().map(|key| ring.owner(key).unwrap().to_string()).collect::<Vec<_>>()
    };
    assert_ne!(owner("plain"), owner("python-bytes"));
}

#[test]
fn repeated_keys_count_and_empty_lines_do_not() {
    let file = Temporary::new("keys", "x\n\ny\r\nx\n x\n\n");
    let keys = Keys::read(&file.0).unwrap();
    assert_eq!(keys.all, ["x", "y", "x", " x"], "a space is a part of a key");
    assert_eq!((keys.repeated, keys.empty_lines), (1, 2));
}

#[test]
fn a_byte_order_mark_is_no_part_of_a_key_or_member_at_any_line() {
    let file = Temporary::new("mark", "\u{feff}x\r\n\u{feff}y\r\n");
    assert_eq!(Keys::read(&file.0).unwrap().all, ["x", "y"]);
    let members = members("marked", "\u{feff}a 2\n\u{feff}b 3\n");
    let ring = members.ring(args(&[]).empty_ring()).unwrap();
    assert_eq!((ring.weight("a"), ring.weight("b")), (Some(2), Some(3)));
}

#[test]
fn keys_with_commas_and_quotes_are_fields_of_their_own_in_the_files() {
    let moved = |key| Move { key, from: Some("a"), to: None };
    let csv = moves_csv(&["plain", "a,b", "say \"x\"", "two\nlines"].map(moved)).unwrap();
    assert_eq!(csv, "key,from,to\nplain,a,\n\"a,b\",a,\n\"say \"\"x\"\"\",a,\n\"two\nlines\",a,\n");
}

#[test]
fn a_repeated_member_is_one_member_with_its_last_weight() {
    let members = members("again", "a 5\nb\na 2\n");
    assert_eq!(members.repeated, 1);
    let ring = members.ring(args(&[]).empty_ring()).unwrap();
    assert_eq!((ring.len(), ring.weight("a")), (2, Some(2)));
}

#[test]
fn what_is_wrong_in_a_file_is_said_with_its_line() {
    let says = |name: &str, content: &[u8], is_keys: bool| {
        let file = Temporary::new(name, content);
        let error =
            if is_keys { Keys::read(&file.0).unwrap_err() } else { Members::read(&file.0).unwrap_err() };
        error.to_string().split_once(".txt").unwrap().1.to_string()
    };
    assert_eq!(says("1", b"\n\n", true), ": there is no key in it; each has a line of its own");
    assert_eq!(says("2", b"", false), ": there is no member in it; each has a line of its own");
    assert_eq!(says("3", b"x\ny\n\xff\n", true), ", line 3: not UTF-8");
    assert_eq!(says("3", b"\xff\xfea\0\n\0", true), ": the text is UTF-16; save it as UTF-8");
    let weight = |text| format!("the weight of `a` has to be a whole number above zero, `{text}` is not");
    assert_eq!(says("4", b"b\na 0\n", false), format!(", line 2: {}", weight("0")));
    assert_eq!(says("5", b"a -1\n", false), format!(", line 1: {}", weight("-1")));
    assert_eq!(says("6", b"a 4294967296\n", false), format!(", line 1: {}", weight("4294967296")));
    let missing = Keys::read(Path::new("/nowhere/at/all")).unwrap_err();
    assert!(matches!(missing, InputError::Unreadable { .. }), "{missing}");
}

#[test]
fn a_change_that_cannot_be_is_refused() {
    let members = members("refused", "a\nb\n");
    let ring = members.ring(args(&[]).empty_ring()).unwrap();
    let change = |leave: &[&str], join: &[&str]| {
        let leave: Vec<String> = leave.iter().map(ToString::to_string).collect();
        let join: Vec<Entry> = join.iter().map(|member| member.parse().unwrap()).collect();
        members.change(&ring, &leave, &join)
    };
    assert!(matches!(change(&["c"], &[]), Err(InputError::UnknownLeaver { .. })));
    assert!(matches!(change(&["a", "a"], &[]), Err(InputError::UnknownLeaver { .. })));
    assert!(matches!(change(&[], &["a"]), Err(InputError::AlreadyThere { .. })));
    assert!(matches!(change(&[], &["c", "c"]), Err(InputError::AlreadyThere { .. })));
    assert_eq!(change(&["a"], &["a 2"]).unwrap().weight("a"), Some(2), "it returns with another weight");
}

#[test]
fn a_thousand_members_of_weight_a_hundred_are_fine_and_ten_times_the_points_are_refused() {
    let text: String = (0..1000).map(|number| format!("host-{number} 100\n")).collect();
    let members = members("thousand", &text);
    let few = members.ring(args(&["--replicas", "2"]).empty_ring()).unwrap();
    assert_eq!(few.len(), 1000);
    let error = members.ring(args(&["--replicas", "1000"]).empty_ring()).unwrap_err();
    assert!(matches!(error, InputError::Ring(RingError::TooManyPoints { .. })), "{error}");
    let error = members.ring(args(&["--replicas", "0"]).empty_ring()).unwrap_err();
    assert!(matches!(error, InputError::Ring(RingError::ZeroReplicas)), "{error}");
}
