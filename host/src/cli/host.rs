//! A running host as `dossier top` and `dossier tap` find it: by its admin address and its token.

use std::path::Path;

use anyhow::{Context as _, bail};

use crate::admin::Client;
use crate::config::{Config, Token};

/// Where the token comes from when it stands in no configuration here: an argument would be seen by everybody on the machine.
const TOKEN: &str = "DOSSIER_ADMIN_TOKEN";

/// Which host.
#[derive(Debug, clap::Args)]
pub struct Which {
    /// The host's admin address, as in 127.0.0.1:9464, or https://… where a proxy before it does TLS; that of the configuration, where
    /// there is one. The token is taken from the environment: DOSSIER_ADMIN_TOKEN
    #[arg(long, value_name = "ADDRESS")]
    address: Option<String>,
}

impl Which {
    /// The host that is meant. A configuration that is wrong elsewhere, or names variables that are not set here, still says where
    /// its host listens.
    ///
    /// # Errors
    /// The address is none, or the configuration says none that could be asked.
    pub fn client(&self, file: &Path) -> anyhow::Result<Client> {
        let given = std::env::var(TOKEN).ok().filter(|token| !token.is_empty());
        let given =
            given.map(|token| Token::new(token).map_err(|why| anyhow::anyhow!("{TOKEN}: {why}"))).transpose()?;
        if let Some(address) = &self.address {
            return Ok(Client::new(address, given)?);
        }
        if !file.exists() {
            return Ok(Client::new("127.0.0.1:9464", given)?);
        }
        let shown = file.display();
        let config =
            Config::examine(file).0.with_context(|| format!("{shown} cannot be read; name the host with --address"))?;
        match config.admin.address {
            None => bail!(
                "[admin] in {shown} says \"off\", so there is nothing to ask; set address there, or name a host with --address"
            ),
            Some(address) if address.port() == 0 => {
                bail!(
                    "[admin] in {shown} takes any free port; name the one in the host's log line \"host ready\" with --address"
                )
            }
            Some(address) => Ok(Client::of(address, given.or(config.admin.token))?),
        }
    }
}
