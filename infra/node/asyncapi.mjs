// Says whether AsyncAPI's own parser takes a document: node asyncapi.mjs FILE. One line for each fault; exit code 1.
import { readFileSync } from 'node:fs'
import { DiagnosticSeverity } from '@stoplight/types'
import { Parser } from '@asyncapi/parser'

const { document, diagnostics } = await new Parser().parse(readFileSync(process.argv[2], 'utf8'))
const faults = diagnostics.filter(({ severity }) => severity <= DiagnosticSeverity.Warning)
for (const { code, message, path } of faults) console.log(`${path.join('.') || 'the document'}: ${message} (${code})`)
if (!document && !faults.length) console.log('the document cannot be read')
process.exitCode = document && !faults.length ? 0 : 1
