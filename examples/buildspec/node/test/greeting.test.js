const test = require("node:test");
const assert = require("node:assert");
const { greeting } = require("../greeting");

test("greets by name", () => assert.equal(greeting("web"), "Hello, web"));
