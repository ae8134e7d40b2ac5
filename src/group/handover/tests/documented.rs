//! What `docs/handover.md` says about the rules and their tests is what the tests are.

use std::collections::BTreeSet;

use super::super::rules::Rule;

const DOCUMENT: &str = include_str!("../../../../docs/handover.md");

/// The rules of which `text` has the name between `before` and `after`.
fn rules(text: &str, before: &str, after: &str) -> BTreeSet<Rule> {
    let is_named = |rule: &&Rule| text.contains(&format!("{before}{rule:?}{after}"));
    Rule::ALL.iter().filter(is_named).copied().collect()
}

/// The paragraph that has this.
fn paragraph(with: &str) -> &'static str {
    let mut found = DOCUMENT.split("\n\n").filter(|paragraph| paragraph.replace('\n', " ").contains(with));
    let paragraph = found.next().unwrap_or_else(|| panic!("no paragraph has {with:?}"));
    assert_eq!(found.next(), None, "{with:?}");
    paragraph
}

#[test]
fn the_document_says_which_tests_find_which_rules() {
    let explored = rules(include_str!("explorer/scopes.rs"), ": ", " in ");
    let simulated = rules(include_str!("simulation/seeds.rs"), ": ", ";");
    let directed = rules(include_str!("directed.rs"), "Rule::", "");
    let all: BTreeSet<Rule> = Rule::ALL.iter().copied().collect();
    let others = &(&all - &explored) - &simulated;
    assert_eq!(&others - &directed, BTreeSet::new(), "no test fails without these");

    assert_eq!(rules(paragraph("| switched off |"), "(`", "`)"), explored);
    let text = paragraph("It does not find");
    assert!(text.contains(&format!("one of {} rules", simulated.len())), "{simulated:?}");
    assert_eq!(rules(text, "`", "`"), &(&all - &simulated) - &others);
    let text = paragraph("are needed only in a certain order");
    let (_, list) = DOCUMENT.split_once(text).expect("it is from there");
    let list = list.trim_start().split("\n\n").next().expect("there is a list");
    assert_eq!(rules(list, "`", "`"), others);
    let number = ["Six", "Seven", "Eight", "Nine", "Ten", "Eleven", "Twelve"][others.len() - 6];
    assert!(text.starts_with(&format!("{number} rules")), "{others:?}");
}
