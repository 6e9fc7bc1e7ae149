//! The OpenAPI description, made from the handlers' annotations and the types that they answer with.

use utoipa::openapi::security::{HttpAuthScheme, HttpBuilder, SecurityScheme};
use utoipa::{Modify, OpenApi};

use super::{report, tap};
use crate::admin::Ready;

/// The whole of it.
#[derive(OpenApi)]
#[openapi(
    info(
        title = "dossier",
        description = "What a running host says of itself: read-only, and the same that `dossier top` and `dossier tap` show. \
            Texts may hold what senders of alerts wrote: make them safe before you show them.",
        license(name = "Apache-2.0", identifier = "Apache-2.0"),
    ),
    paths(
        super::super::healthz,
        super::super::readyz,
        super::super::metrics,
        super::status,
        super::steps,
        super::dead_letters,
        super::tables,
        super::alarms,
        super::events,
        tap::tap,
        super::openapi,
    ),
    components(schemas(report::Problem, Ready)),
    modifiers(&Bearer),
    security((), ("token" = [])),
)]
pub(super) struct Description;

/// The token of `[admin]`.
struct Bearer;

impl Modify for Bearer {
    fn modify(&self, openapi: &mut utoipa::openapi::OpenApi) {
        let bearer = HttpBuilder::new()
            .scheme(HttpAuthScheme::Bearer)
            .description(Some("The token of [admin] in dossier.toml; not needed where there is none."))
            .build();
        openapi.components.get_or_insert_default().add_security_scheme("token", SecurityScheme::Http(bearer));
    }
}
