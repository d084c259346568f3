#!/usr/bin/env node
// The npm compiler behind native solc's command line, as far as py-solc-x needs it: --version and --standard-json.
"use strict";

const fs = require("fs");
const path = require("path");
const solc = require(path.join(__dirname, "..", "node_modules", "solc"));

// Pipes are asynchronous in Node: exit only when the text is out, or it is cut at a multiple of the pipe's buffer.
function finish(text, code) {
  process.stdout.write(text, () => process.exit(code));
}

if (process.argv.includes("--version")) {
  finish(`solc, the solidity compiler commandline interface\nVersion: ${solc.version()}\n`, 0);
} else if (process.argv.includes("--standard-json")) {
  // Every source comes with its content, so that no import is looked up on disk.
  finish(solc.compile(fs.readFileSync(0, "utf8")), 0);
} else {
  process.stderr.write("solc.js knows --version and --standard-json only\n");
  process.exitCode = 1;
}
