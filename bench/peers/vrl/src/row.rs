//! `row(table, key)`: the row of a table as an object, or null.

use std::sync::Arc;

use peer_shared::Tables;
use vrl::prelude::*;

/// The function.
#[derive(Debug, Clone)]
pub struct Row(pub Arc<Tables<Value>>);

impl Function for Row {
    fn identifier(&self) -> &'static str {
        "row"
    }

    fn usage(&self) -> &'static str {
        "The row of a table, or null."
    }

    fn category(&self) -> &'static str {
        "Enrichment"
    }

    fn return_kind(&self) -> u16 {
        kind::OBJECT | kind::NULL
    }

    fn parameters(&self) -> &'static [Parameter] {
        const PARAMETERS: &[Parameter] = &[
            Parameter::required("table", kind::BYTES, "The table."),
            Parameter::required("key", kind::BYTES, "The key."),
        ];
        PARAMETERS
    }

    fn examples(&self) -> &'static [Example] {
        &[]
    }

    fn compile(&self, _: &state::TypeState, _: &mut FunctionCompileContext, arguments: ArgumentList) -> Compiled {
        let (table, key) = (arguments.required("table"), arguments.required("key"));
        Ok(RowCall { tables: Arc::clone(&self.0), table, key }.as_expr())
    }
}

#[derive(Debug, Clone)]
struct RowCall {
    tables: Arc<Tables<Value>>,
    table: Box<dyn Expression>,
    key: Box<dyn Expression>,
}

impl FunctionExpression for RowCall {
    fn resolve(&self, context: &mut Context) -> Resolved {
        let (table, key) = (self.table.resolve(context)?, self.key.resolve(context)?);
        let row = self.tables.row(&table.try_bytes_utf8_lossy()?, &key.try_bytes_utf8_lossy()?);
        Ok(row.unwrap_or(Value::Null))
    }

    fn type_def(&self, _: &state::TypeState) -> TypeDef {
        TypeDef::object(Collection::any()).or_null().infallible()
    }
}
