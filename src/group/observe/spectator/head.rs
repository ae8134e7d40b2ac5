//! Reads the head of a group, which names the members of each epoch.

use tokio::time::sleep;

use super::{Reading, SHORTEST, TRIES, Watched};
use crate::{
    backend::{self, Session},
    error::Error,
    group::{
        handover::{HeadRead, History, HistoryError, Places},
        large,
    },
    session::requests::Failure,
};

impl Reading<'_> {
    pub(super) async fn read_head(&mut self, session: &dyn Session) -> Result<(), Failure> {
        self.known.head_problem = None;
        let path = &self.target.places.head;
        let watch = match session.watch_node(path).await {
            Ok((_, watch)) => watch,
            Err(backend::Error::NotPermitted) => {
                self.known.head_problem = Some(Error::NotPermitted { path: path.to_string() });
                self.known.history = None;
                return Ok(());
            }
            Err(error) => return Err(Failure::at(path)(error)),
        };
        self.watches.extend([(Watched::Head, watch)]);
        for _ in 0..TRIES {
            let found = match session.get(path).await {
                Err(backend::Error::NotPermitted) => {
                    self.known.head_problem = Some(Error::NotPermitted { path: path.to_string() });
                    None
                }
                found => found.map_err(Failure::at(path))?,
            };
            let Some(found) = found else {
                self.known.forget_head();
                return Ok(());
            };
            let modified = found.1.modified_ms;
            let read = match Places::read_head(&found) {
                Ok(read) => read,
                Err(error) => {
                    self.head_is_useless(error.to_string());
                    return Ok(());
                }
            };
            let known = self.known.history.clone().filter(|known| known.reaches(&read));
            let made = history(session, &self.target.places, known, &read).await;
            if matches!(made, Err(backend::Error::NotPermitted)) {
                let path = self.target.places.snapshot(read.head.snapshot).to_string();
                self.known.head_problem = Some(Error::NotPermitted { path });
                self.known.forget_head();
                return Ok(());
            }
            match made.map_err(Failure::at(path))? {
                Ok(history) => {
                    self.known.follow(history, &read, modified);
                    return Ok(());
                }
                Err(HistoryError::DoNotFit) => sleep(SHORTEST).await,
                Err(HistoryError::Inconsistent(why)) => {
                    self.head_is_useless(why.into());
                    return Ok(());
                }
                Err(HistoryError::Ring(error)) => {
                    self.head_is_useless(error.to_string());
                    return Ok(());
                }
            }
        }
        self.head_is_useless("its snapshot does not belong to it".into());
        // Perhaps it has changed each time.
        self.watches.retain(|watched| *watched != Watched::Head);
        Ok(())
    }

    fn head_is_useless(&mut self, reason: String) {
        self.known.forget_head();
        let Places { group, head, .. } = &self.target.places;
        self.known.head_problem =
            Some(Error::Head { group: group.name().to_owned(), path: head.to_string(), reason });
    }
}

/// The history up to the head that was read, from a part of it that is `known`.
async fn history(
    session: &dyn Session,
    places: &Places,
    known: Option<History>,
    read: &HeadRead,
) -> Result<Result<History, HistoryError>, backend::Error> {
    let mut weights = read.head.added_weight();
    let replicas = u64::from(read.head.common.replicas);
    let read = read.clone();
    let (made, points): (Box<dyn FnOnce() -> _ + Send>, u64) = match known {
        Some(known) => {
            let points = known.ring.points() as u64;
            (Box::new(move || known.extended(&read)), points)
        }
        None => {
            let Some(found) = session.get(&places.snapshot(read.head.snapshot)).await? else {
                return Ok(Err(HistoryError::DoNotFit));
            };
            let Ok(snapshot) = Places::read_snapshot(&found) else {
                return Ok(Err(HistoryError::Inconsistent("its snapshot cannot be decoded")));
            };
            weights += snapshot.weight();
            (Box::new(move || History::new(&read, &snapshot)), 0)
        }
    };
    Ok(large::on_points(points + weights * replicas, made).await)
}
