// Makes a component of a JavaScript module: node - SOURCE WIT WORLD OUTPUT, in the plugin's folder.
import { writeFile } from 'node:fs/promises';
import { componentize } from '@bytecodealliance/componentize-js';

const [sourcePath, witPath, worldName, output] = process.argv.slice(2);
try {
  const { component } = await componentize({
    sourcePath,
    witPath,
    worldName,
    // Nothing of WASI: a plugin has no files, no clock, no randomness and no network but the host's.
    disableFeatures: ['stdio', 'random', 'clocks', 'http', 'fetch-event'],
  });
  await writeFile(output, component);
} catch (error) {
  console.error(String(error?.message ?? error));
  process.exit(1);
}
