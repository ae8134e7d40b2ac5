//! The token of a share protects a row in a database.

use apportion::{Config, PartitionCoordinator, backend::Memory};
use serde_json::json;

use crate::support::python::python;

const GUARANTEES: &str = include_str!("../../docs/guarantees.md");

/// The statement that the document gives to its readers.
fn statement() -> &'static str {
    let (_, after) = GUARANTEES.split_once("```sql\n").expect("it has one");
    after.split_once("\n```").expect("it ends").0
}

#[tokio::test]
async fn the_statement_of_the_guarantees_refuses_a_write_of_an_earlier_owner() {
    let mut database = python("interop/fenced_row.py", &[]);
    assert_eq!(database.says().await["ready"], true);
    let coordinator = PartitionCoordinator::connect(Config::for_backend(Memory::new())).await.unwrap();
    let group = coordinator.join("alarm-evaluator").await.unwrap();
    let alarm = group.extract_my_subset(["cpu"]).await.unwrap().into_iter().next().unwrap();
    let token = alarm.token().get();
    for (state, token, changed) in
        [("alarm", token, 1), ("ok", token - 1, 0), ("ok", token, 1), ("alarm", token + 1, 1)]
    {
        let values = json!({ "id": *alarm, "state": state, "token": token });
        let done = database.ask(json!({ "do": "run", "statement": statement(), "values": values })).await;
        assert_eq!(done["changed"], changed, "{state} {token}");
    }
    let row = database.ask(json!({ "do": "row" })).await;
    assert_eq!((&row["state"], &row["token"]), (&json!("alarm"), &json!(token + 1)));
}
