/** Writes the documents that are generated from code. A test fails when one of them is out of date. */
import { writeFileSync } from 'node:fs';
import { optionsMarkdown } from '#engine/options-document.ts';
import { errorsMarkdown } from './errors-document.ts';
import { operatorOptionsMarkdown } from './operator-options-document.ts';
import { resourceMarkdown } from './resource-document.ts';

writeFileSync('docs/options.md', optionsMarkdown());
writeFileSync('docs/errors.md', errorsMarkdown());
writeFileSync('docs/operator-options.md', operatorOptionsMarkdown());
writeFileSync('docs/resource.md', resourceMarkdown());
