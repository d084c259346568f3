// A certified identity provider on loopback: node provider.mjs PORT REDIRECT_URI
// Its pages of development take any login; the login's name decides the person's groups.
import Provider from "oidc-provider";

const [port, redirect] = process.argv.slice(2);
const issuer = `http://127.0.0.1:${port}`;
const GROUPS = { ada: ["statistics", "approvers"], bo: ["cleaning"] };
const client = {
  client_secret: "secret of the tests, of forty characters",
  redirect_uris: [redirect],
  response_types: ["code"],
  grant_types: ["authorization_code"],
};
const provider = new Provider(issuer, {
  clients: [
    { ...client, client_id: "coterie-north" },
    { ...client, client_id: "another-service" },
  ],
  claims: { openid: ["sub"], profile: ["name"], groups: ["groups"] },
  conformIdTokenClaims: false,
  scopes: ["openid", "profile", "groups"],
  pkce: { required: () => true },
  findAccount: (_, id) => ({
    accountId: id,
    claims: () => ({ sub: id, name: id === "ada" ? "Ada Lovelace" : id, groups: GROUPS[id] ?? [] }),
  }),
});
provider.listen(Number(port), "127.0.0.1", () => console.log(`listening ${issuer}`));
