/** Writes the documents that are generated from code. A test fails when one of them is out of date. */
import { writeFileSync } from 'node:fs';
import { optionsMarkdown } from '#engine/options-document.ts';
import { errorsMarkdown } from './errors-document.ts';
import { operatorMetricsMarkdown } from './operator-metrics-document.ts';
import { operatorOptionsMarkdown } from './operator-options-document.ts';
import { operatorSecurityMarkdown } from './operator-security-document.ts';
import { resourceMarkdown } from './resource-document.ts';

writeFileSync('docs/options.md', optionsMarkdown());
writeFileSync('docs/errors.md', errorsMarkdown());
writeFileSync('docs/operator-options.md', operatorOptionsMarkdown());
writeFileSync('docs/resource.md', resourceMarkdown());
writeFileSync('docs/operator-metrics.md', await operatorMetricsMarkdown());
writeFileSync('docs/operator-security.md', operatorSecurityMarkdown());
