// What the contract says, in JavaScript's words. Yours to change: it is a part of the plugin.

import { log } from 'dossier:plugin/log@1.0.0';

// What `enrich` throws, each with what becomes of the alert:
// there is nothing here that the plugin is for; the alert goes on,
export const notApplicable = (why) => ({ tag: 'not-applicable', val: why });
// something is not there now; the host calls again later,
export const unavailable = (reason, afterMs) => ({ tag: 'unavailable', val: { reason, afterMs } });
// the alert is not what it should be; it goes to the dead letters,
export const invalid = (why) => ({ tag: 'invalid', val: why });
// the plugin is wrong; so does it then.
export const internal = (why) => ({ tag: 'internal', val: why });

// There is no console in a plugin: what would be printed becomes lines of the host's log.
const line = (level) => (...words) => log(level, words.map((word) => (typeof word === 'string' ? word : JSON.stringify(word))).join(' '));
globalThis.console = { debug: line('debug'), log: line('info'), info: line('info'), warn: line('warn'), error: line('error') };

// An enricher whose mistakes are explained: without it an exception would end the call as a trap, which says nothing.
export const explained = (enricher) => ({
  ...enricher,

  configure(settings) {
    try {
      enricher.configure(settings);
    } catch (error) {
      throw typeof error === 'string' ? error : String(error);
    }
  },

  enrich(alert) {
    try {
      return enricher.enrich(alert);
    } catch (error) {
      // What the host throws has its reason in `payload`.
      if (error?.tag !== undefined) throw error;
      const { tag, val } = error?.payload ?? {};
      if (tag === 'unavailable') throw unavailable(val);
      const reason = tag === undefined ? String(error) : `${tag}: ${val}`;
      console.error(`${reason}\n${error?.stack ?? ''}`);
      throw internal(reason);
    }
  },
});
