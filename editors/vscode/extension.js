// Starts `nnac lsp` and hands it every .nnac file.
const vscode = require("vscode");
const { LanguageClient } = require("vscode-languageclient/node");

let client;

exports.activate = () => {
  const command = vscode.workspace.getConfiguration("nnac").get("command");
  client = new LanguageClient("nnac", "nnac", { command, args: ["lsp"] }, { documentSelector: [{ language: "nnac" }] });
  return client.start();
};

exports.deactivate = () => client && client.stop();
