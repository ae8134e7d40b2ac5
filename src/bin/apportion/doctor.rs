//! `doctor`: looks for what is wrong. It says as well what it could not find out.

mod access;
mod servers;

use apportion::serde_json::json;

use crate::{
    arguments::{Common, Doctor},
    failure::Failure,
    findings::{self, Finding},
    group,
    outcome::Outcome,
    output::{Output, count},
    store::{Store, config},
    work,
};

pub(crate) async fn run(common: &Common, doctor: &Doctor, output: Output) -> Result<Outcome, Failure> {
    let config = config(common)?;
    let mut sections: Vec<(&str, Vec<Finding>)> = Vec::new();
    // First, because they say why there is no session.
    let servers = servers::examine(&config);
    let store = match Store::open(common).await {
        Ok(store) => store,
        Err(failure @ Failure::Usage(_)) => return Err(failure),
        Err(failure) => {
            show(&[("servers", servers)], doctor.quiet, output)?;
            return Err(failure);
        }
    };
    sections.push(("servers", servers));
    sections.push(("session", access::session(&store, doctor.read_only).await));
    sections.push(("permissions", access::permissions(&store, doctor).await));
    sections.push(("groups", groups(&store, doctor).await));
    let examined = work::examine(&store, &doctor.work).await;
    sections.extend(examined.into_iter().map(|it| (it.kind.as_str(), it.found)));
    store.close().await;
    show(&sections, doctor.quiet, output)?;
    Ok(Outcome::of(sections.iter().flat_map(|(_, found)| found).any(|it| it.is_problem)))
}

fn show(sections: &[(&str, Vec<Finding>)], quiet: bool, output: Output) -> Result<(), Failure> {
    if output.is_json {
        let of_all = sections.iter().flat_map(|(name, found)| found.iter().map(move |it| (*name, it)));
        let found = of_all.filter(|(_, it)| it.is_problem || !quiet).map(|(name, it)| {
            let mut value = it.json();
            value["section"] = name.into();
            value
        });
        return output.json(&json!({ "findings": found.collect::<Vec<_>>() }));
    }
    for (name, found) in sections {
        let shown: Vec<Finding> = found.iter().filter(|it| it.is_problem || !quiet).cloned().collect();
        if !shown.is_empty() {
            output.titled(name, "")?;
            output.findings(&shown)?;
        }
    }
    let problems = sections.iter().flat_map(|(_, found)| found).filter(|it| it.is_problem).count();
    match problems {
        0 if quiet => Ok(()),
        0 => output.line("no problem found"),
        _ => output.line(count(problems, "problem")),
    }
}

async fn groups(store: &Store, doctor: &Doctor) -> Vec<Finding> {
    let observed = async {
        let groups = group::chosen(store, &doctor.which).await?;
        let seen = group::observe(store, &groups).await?;
        Ok::<Vec<_>, Failure>(groups.into_iter().zip(seen).collect())
    };
    match observed.await {
        Ok(observed) => {
            let mut found = Vec::new();
            for (group, seen) in observed {
                match seen {
                    Ok(seen) => {
                        let members = count(seen.members().len(), "member");
                        found.push(Finding::note("group", format!("group `{group}`: {members}")));
                        found.extend(findings::of_group(&seen));
                        found.extend(persistent(store, &group).await);
                    }
                    Err(failure) => found.push(group::unreadable(&group, &failure)),
                }
            }
            found
        }
        // A fleet with boards and queues alone has no groups.
        Err(failure) if doctor.which.group.is_none() && has_work(doctor) => {
            vec![Finding::note("no_groups", failure.to_string())]
        }
        Err(failure) => {
            vec![Finding::problem("not_examined", failure.to_string(), "The groups were not examined")]
        }
    }
}

fn has_work(doctor: &Doctor) -> bool {
    !doctor.work.is_none()
}

/// How many children of a group are examined.
const EXAMINED: usize = 1000;

/// Children of a group that no session owns, as an election of tooz leaves one.
async fn persistent(store: &Store, group: &str) -> Vec<Finding> {
    let Ok(folder) = store.namespace.join(group) else { return Vec::new() };
    let Ok(Some((names, _))) = store.children(&folder).await else { return Vec::new() };
    let paths: Vec<_> = names.iter().take(EXAMINED).filter_map(|name| folder.join(name).ok()).collect();
    let Ok(read) = store.read(&paths).await else { return Vec::new() };
    let persistent = paths
        .iter()
        .zip(read)
        .filter(|(_, read)| matches!(read, Ok(Some((_, stat))) if stat.ephemeral_owner.is_none()));
    let note = |path| {
        let what = format!("`{path}` is no member, and each Python peer takes it for one");
        Finding::note("no_member_znode", what)
    };
    persistent.map(|(path, _)| note(path)).collect()
}
