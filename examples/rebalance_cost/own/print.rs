//! Prints what would happen to your keys: the most important first, and not too many lines.

use std::path::PathBuf;

use apportion::HashRing;

use super::{
    OwnArgs,
    input::{Keys, Members},
    moves::{Balance, Outcome, Share},
};
use crate::{
    report,
    support::{
        Column, say,
        screen::{bold, count, dim, some_of},
        table,
    },
};

/// The rest is in the files.
const ROWS: usize = 15;
/// A longer key would break the table.
const KEY_WIDTH: usize = 44;

pub fn all(
    keys: &Keys,
    members: &Members,
    before: &HashRing,
    args: &OwnArgs,
    outcome: &Outcome<'_>,
    files: &[PathBuf],
) {
    input(keys, members, before);
    if args.leave.is_empty() && args.join.is_empty() {
        say!("No member leaves or joins: use --leave and --join.");
    } else {
        change(args, outcome, keys.all.len());
    }
    shares(outcome);
    report::print_list(files);
}

fn input(keys: &Keys, members: &Members, before: &HashRing) {
    say!(
        "{} and {}, with {} for each unit of weight; label {}.",
        bold(count(keys.all.len(), "key")),
        bold(count(before.len(), "member")),
        count(before.replicas() as usize, "point"),
        before.label()
    );
    let notes = [
        (keys.repeated, "repeated key", "kept, each counts"),
        (keys.empty_lines, "empty line", "left out"),
        (members.repeated, "repeated member", "the same member, its last weight counts"),
    ];
    for (number, what, effect) in notes.into_iter().filter(|(number, ..)| *number > 0) {
        say!("{}", dim(format!("  {}: {effect}", count(number, what))));
    }
}

fn change(args: &OwnArgs, outcome: &Outcome<'_>, keys: usize) {
    let leave: Vec<&str> = args.leave.iter().map(String::as_str).collect();
    let join: Vec<&str> = args.join.iter().map(|member| member.id.as_str()).collect();
    let say_who = |members: &[&str], verb: &str| {
        let s = if members.len() == 1 { "s" } else { "" };
        (!members.is_empty()).then(|| format!("{} {verb}{s}", bold(some_of(members, 60))))
    };
    let who: Vec<String> = [say_who(&leave, "leave"), say_who(&join, "join")].into_iter().flatten().collect();
    say!("\n{}.", who.join("; "));
    say!(
        "{} of {keys} move, {:.2} %; with fair shares {:.2} % would have to.\n\
         Between members that stay: {}.",
        bold(count(outcome.moves.len(), "key")),
        100.0 * outcome.moves.len() as f64 / keys as f64,
        100.0 * outcome.ideal,
        bold(outcome.between)
    );
    let pairs = outcome.pairs();
    if pairs.is_empty() {
        return;
    }
    say!("");
    let rows = pairs.iter().take(ROWS).map(|pair| [pair.keys.to_string(), name(pair.from), name(pair.to)]);
    table(&[Column::Right("keys"), Column::Left("from"), Column::Left("to")], rows);
    and_more(pairs.len(), "pair", "");
    say!("");
    let some = outcome.moves.iter().take(ROWS);
    let rows = some.map(|moved| [shortened(moved.key), name(moved.from), name(moved.to)]);
    table(&[Column::Left("key"), Column::Left("from"), Column::Left("to")], rows);
    and_more(outcome.moves.len(), "key", ": see moves.csv");
}

fn shares(outcome: &Outcome<'_>) {
    say!("");
    let number = |is_there: bool, keys: usize| if is_there { keys.to_string() } else { "-".into() };
    let mut members: Vec<(&&str, &Share)> = outcome.shares.iter().collect();
    let change = |share: &Share| share.after.keys as i64 - share.before.keys as i64;
    members.sort_by_key(|(_, share)| std::cmp::Reverse(change(share).abs()));
    let rows = members.iter().take(ROWS).map(|(member, share)| {
        let weight = share.after.weight.or(share.before.weight).unwrap_or_default();
        [
            shortened(member),
            weight.to_string(),
            number(share.before.weight.is_some(), share.before.keys),
            number(share.after.weight.is_some(), share.after.keys),
            format!("{:+}", change(share)),
        ]
    });
    let columns = ["weight", "keys before", "keys after", "change"].map(Column::Right);
    table(&[&[Column::Left("member")], &columns[..]].concat(), rows);
    and_more(members.len(), "member", ": see shares.csv");
    say!("");
    let sides =
        [("before", outcome.balance(|share| share.before)), ("after", outcome.balance(|share| share.after))];
    let figures = |balance: Option<Balance>| match balance {
        Some(Balance { most, least, cv, .. }) => [most, least, cv].map(|figure| format!("{figure:.3}")),
        // No member is left.
        None => ["-"; 3].map(String::from),
    };
    let rows = sides.map(|(when, balance)| std::iter::once(when.into()).chain(figures(balance)));
    let columns = ["largest / fair", "smallest / fair", "coefficient of variation"].map(Column::Right);
    table(&[&[Column::Left("shares")], &columns[..]].concat(), rows);
}

fn and_more(all: usize, what: &str, where_to: &str) {
    if all > ROWS {
        say!("{}", dim(format!("  and {}{where_to}", count(all - ROWS, &format!("more {what}")))));
    }
}

fn name(member: Option<&str>) -> String {
    member.map_or("(none)".into(), shortened)
}

/// On one line, and not too long.
fn shortened(text: &str) -> String {
    let text: String = text.escape_debug().collect();
    match text.char_indices().nth(KEY_WIDTH) {
        Some((end, _)) => format!("{}...", &text[..end]),
        None => text,
    }
}
