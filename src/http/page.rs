// Pure: no runtime, no clock, no socket, no random numbers.

//! The status as a page: readable without script, well-formed, and with every text of another process escaped.

mod text;

use std::{
    fmt::{Display, Write as _},
    time::Duration,
};

use self::text::{Escaped, ago, percent};
use crate::{
    board::BoardStatus,
    coordinator::{CoordinatorStatus as Status, GroupStatus, SessionStatus},
    group::Standing,
    queue::QueueStatus,
    session::shown::SessionState,
};

const STYLE: &str = include_str!("page.css");

/// The members of a larger group are shown when the reader asks for them.
const SHOWN_MEMBERS: usize = 32;

/// What a text is worth to the reader.
#[derive(Clone, Copy)]
enum Tone {
    Good,
    Warning,
    Bad,
    Plain,
}

pub(super) fn page(status: &Status) -> String {
    let mut page = Page(String::with_capacity(16 * 1024));
    page.head(&status.member);
    let obstacles = status.obstacles();
    page.raw("<body><header><h1>");
    page.text(&status.member);
    page.raw("</h1>");
    match obstacles.is_empty() {
        true => page.badge(Tone::Good, &"may act"),
        false => page.badge(Tone::Bad, &"may not act"),
    }
    page.raw("</header><main>");
    if !obstacles.is_empty() {
        page.raw("<section class=\"obstacles\"><h2>What keeps it from acting</h2><ul>");
        for obstacle in &obstacles {
            page.element("li", obstacle);
        }
        page.raw("</ul></section>");
    }
    page.session(&status.session);
    status.groups.iter().for_each(|group| page.group(group));
    page.boards(&status.boards);
    page.queues(&status.queues);
    page.raw("</main><footer>As this process knows it, without a request to the store. Loaded again every ten seconds. ");
    page.raw("With <code>Accept: application/json</code> the same as JSON. What the other members wait for is on their pages; ");
    page.raw("<code>apportion status</code> shows all.</footer></body></html>\n");
    page.0
}

struct Page(String);

impl Page {
    /// Markup of ours.
    fn raw(&mut self, markup: &str) {
        self.0.push_str(markup);
    }

    /// A text of another process.
    fn text(&mut self, text: &impl Display) {
        write!(self.0, "{}", Escaped(text)).expect("a string takes everything");
    }

    fn element(&mut self, name: &str, text: &impl Display) {
        write!(self.0, "<{name}>{}</{name}>", Escaped(text)).expect("a string takes everything");
    }

    fn head(&mut self, member: &impl Display) {
        self.raw("<!DOCTYPE html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"/>");
        self.raw("<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\"/>");
        self.raw("<meta name=\"color-scheme\" content=\"light dark\"/>");
        self.raw("<meta http-equiv=\"refresh\" content=\"10\"/><title>");
        self.text(member);
        self.raw(" - apportion</title><style>");
        self.raw(STYLE);
        self.raw("</style></head>");
    }

    fn badge(&mut self, tone: Tone, text: &impl Display) {
        let class = match tone {
            Tone::Good => "good",
            Tone::Warning => "warning",
            Tone::Bad => "bad",
            Tone::Plain => "plain",
        };
        write!(self.0, "<span class=\"badge {class}\">{}</span>", Escaped(text))
            .expect("a string takes everything");
    }

    /// A name and its value, in a list of such.
    fn fact(&mut self, name: &str, value: &impl Display) {
        write!(self.0, "<div><dt>{name}</dt><dd>{}</dd></div>", Escaped(value))
            .expect("a string takes everything");
    }

    fn problem(&mut self, problem: Option<&String>) {
        if let Some(problem) = problem {
            self.raw("<p class=\"problem\">");
            self.text(problem);
            self.raw("</p>");
        }
    }

    fn session(&mut self, session: &SessionStatus) {
        self.raw("<section><h2>Session ");
        let tone = match session.state {
            SessionState::Standalone | SessionState::Connected => Tone::Good,
            SessionState::Suspended | SessionState::Opening => Tone::Warning,
            SessionState::Closed => Tone::Bad,
        };
        self.badge(tone, &session.state);
        self.raw("</h2><dl>");
        if !session.servers.is_empty() {
            self.fact("servers", &session.servers.join(", "));
        }
        if let Some(id) = &session.id {
            self.fact("session", id);
        }
        if let Some(remaining) = session.remaining {
            match remaining.is_zero() {
                true => self.fact("may act for", &"no time"),
                false => self.fact("may act for", &ago(remaining)),
            }
        }
        if let Some(timeout) = session.timeout {
            self.fact("session timeout", &ago(timeout));
        }
        self.raw("</dl>");
        self.problem(session.problem.as_ref());
        self.raw("</section>");
    }

    fn group(&mut self, GroupStatus { status, parts }: &GroupStatus) {
        self.raw("<section><h2>Group ");
        self.text(&status.group);
        self.raw(" ");
        let tone = match status.standing {
            Standing::Member => Tone::Good,
            Standing::Joining => Tone::Warning,
            Standing::Lapsed | Standing::Refused => Tone::Bad,
            Standing::Left => Tone::Plain,
        };
        self.badge(tone, &status.standing);
        if status.is_paused {
            self.badge(Tone::Warning, &"paused");
        }
        if !status.is_exclusive && status.standing == Standing::Member {
            self.badge(Tone::Warning, &"not exclusive");
        }
        if !status.waiting.is_empty() {
            self.badge(Tone::Warning, &"waits");
        }
        self.raw("</h2><dl>");
        self.fact("members", &status.members);
        self.fact("owns", &percent(status.owned));
        self.fact("may start", &percent(status.startable));
        self.fact("items in progress", &status.in_progress);
        if status.kept > 0 {
            self.fact("lost ranges still in progress", &status.kept);
        }
        if let Some(last) = &status.last_handover {
            self.fact("last handover", &format_args!("{} in {}", last.kind.as_str(), ago(last.waited)));
        }
        self.fact("epoch", &status.epoch);
        self.fact("digest of the ring", &format_args!("{:016x}", status.digest));
        self.raw("</dl>");
        self.problem(status.problem.as_ref());
        if !status.waiting.is_empty() {
            self.raw("<h3>What this member waits for</h3>");
            self.table_head(&["member", "waiting part", "for", "why"]);
            for waiting in &status.waiting {
                self.raw("<tr>");
                self.cell("member", "name", &waiting.member);
                self.cell("waiting part", "number", &percent(waiting.fraction));
                self.cell("for", "number", &ago(waiting.since));
                self.cell("why", "", &waiting.why);
                self.raw("</tr>");
            }
            self.raw("</tbody></table>");
        }
        if parts.len() > SHOWN_MEMBERS {
            self.raw("<details><summary>");
        } else {
            self.raw("<details open=\"open\"><summary>");
        }
        self.text(&format_args!("Members ({})", parts.len()));
        self.raw("</summary>");
        self.table_head(&["member", "weight", "part of the keys"]);
        for part in parts {
            self.raw("<tr><td class=\"name\" data-label=\"member\">");
            self.text(&part.member);
            if part.member == status.member {
                self.badge(Tone::Plain, &"this process");
            }
            if part.is_plain {
                self.badge(Tone::Warning, &"plain");
            }
            self.raw("</td>");
            self.cell("weight", "number", &part.weight);
            self.raw("<td class=\"part\" data-label=\"part of the keys\">");
            self.element("span", &percent(part.owned));
            let width = (100.0 * part.owned).clamp(0.0, 100.0);
            write!(self.0, "<span class=\"bar\"><span style=\"width:{width:.2}%\"></span></span></td></tr>")
                .expect("a string takes everything");
        }
        self.raw("</tbody></table></details></section>");
    }

    fn boards(&mut self, boards: &[BoardStatus]) {
        if boards.is_empty() {
            return;
        }
        let names =
            ["board", "unclaimed", "delayed", "claimed", "set aside", "oldest", "held here", "listed"];
        self.raw("<section><h2>Boards</h2>");
        self.table_head(&names);
        for board in boards {
            self.raw("<tr>");
            self.cell("board", "name", &board.board);
            self.cell("unclaimed", "number", &board.unclaimed);
            self.cell("delayed", "number", &board.delayed);
            self.cell("claimed", "number", &board.claimed);
            self.cell(
                "set aside",
                if board.set_aside > 0 { "number warning" } else { "number" },
                &board.set_aside,
            );
            self.cell("oldest", "number", &maybe(board.oldest));
            self.held(board.held, board.oldest_held);
            self.cell("listed", "number", &listed(board.listed));
            self.raw("</tr>");
        }
        self.raw("</tbody></table>");
        boards.iter().for_each(|board| self.problem(board.problem.as_ref()));
        self.raw("</section>");
    }

    fn queues(&mut self, queues: &[QueueStatus]) {
        if queues.is_empty() {
            return;
        }
        self.raw("<section><h2>Queues</h2>");
        self.table_head(&["queue", "waiting", "delayed", "limit", "oldest", "held here", "listed"]);
        for queue in queues {
            let is_full = queue.is_full();
            self.raw("<tr><td class=\"name\" data-label=\"queue\">");
            self.text(&queue.queue);
            if is_full {
                self.badge(Tone::Warning, &"full");
            }
            self.raw("</td>");
            self.cell("waiting", if is_full { "number warning" } else { "number" }, &queue.waiting);
            self.cell("delayed", "number", &queue.delayed);
            self.cell("limit", "number", &queue.max_len);
            self.cell("oldest", "number", &maybe(queue.oldest));
            self.held(queue.held, queue.oldest_held);
            self.cell("listed", "number", &listed(queue.listed));
            self.raw("</tr>");
        }
        self.raw("</tbody></table>");
        queues.iter().for_each(|queue| self.problem(queue.problem.as_ref()));
        self.raw("</section>");
    }

    fn held(&mut self, held: usize, oldest: Option<Duration>) {
        match oldest {
            Some(oldest) => self.cell("held here", "number", &format_args!("{held}, for {}", ago(oldest))),
            None => self.cell("held here", "number", &held),
        }
    }

    fn table_head(&mut self, names: &[&str]) {
        self.raw("<table><thead><tr>");
        for name in names {
            let class = if is_number(name) { " class=\"number\"" } else { "" };
            write!(self.0, "<th scope=\"col\"{class}>{name}</th>").expect("a string takes everything");
        }
        self.raw("</tr></thead><tbody>");
    }

    fn cell(&mut self, label: &str, class: &str, value: &impl Display) {
        write!(self.0, "<td class=\"{class}\" data-label=\"{label}\">{}</td>", Escaped(value))
            .expect("a string takes everything");
    }
}

/// Whether the column has numbers, which are aligned at the end.
fn is_number(name: &str) -> bool {
    !["member", "why", "board", "queue", "part of the keys"].contains(&name)
}

fn maybe(age: Option<Duration>) -> String {
    age.map_or("none".to_owned(), |age| ago(age).to_string())
}

fn listed(age: Option<Duration>) -> String {
    age.map_or("not yet".to_owned(), |age| format!("{} ago", ago(age)))
}
