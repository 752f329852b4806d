// Writes dist/: a page, and which commit it was built from.
const fs = require("node:fs");
const { greeting } = require("./greeting");

const { COMMIT_ID, GIT_REF, COMMIT_MESSAGE } = process.env;
fs.mkdirSync("dist", { recursive: true });
fs.writeFileSync("dist/index.html", `<!doctype html><title>web</title><p>${greeting("web")}\n`);
fs.writeFileSync("dist/version.json", JSON.stringify({ commit: COMMIT_ID, ref: GIT_REF, message: COMMIT_MESSAGE }));
