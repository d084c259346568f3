"""Every command: its module, and the line that stands in lists of commands.

A test compares this table with the commands themselves.
"""

from __future__ import annotations

from coterie_node.cli.lazy import CommandGroup, LazyCommand, Table

COMMANDS: Table = {
    "init": LazyCommand(
        "coterie_node.cli.site.init:init_command",
        "Make a site's node: settings, encrypted keys, and a card to send to the network's founders.",
    ),
    "doctor": LazyCommand(
        "coterie_node.cli.site.doctor:doctor_command",
        "Check this site's node: key, journal, disk, chain, seat, peers, clock, store and rows; status 12 "
        "if one fails.",
    ),
    "backup": LazyCommand(
        "coterie_node.cli.site.backup:backup_command",
        "Write all that makes this site into one encrypted file: keys, identities, journal, decisions, privacy log.",
    ),
    "restore": LazyCommand(
        "coterie_node.cli.site.backup:restore_command",
        "Make a site's folder from its backup; refused while another copy of the site answers at its addresses.",
    ),
    "invite": LazyCommand(
        "coterie_node.cli.site.join:invite_command", "Print an invitation to this site's network; it has no secret."
    ),
    "join": LazyCommand(
        "coterie_node.cli.site.join:join_command",
        "Join the network of an invitation: check it against this site's own chain node, and write network.json.",
    ),
    "serve": LazyCommand(
        "coterie_node.cli.site.serve:serve_command",
        "Run this site's node: take part in what its people approved, until SIGTERM or Ctrl-C.",
    ),
    "web": LazyCommand(
        "coterie_node.cli.site.web:web_command",
        "Show this site's page at the address of [web] in node.toml, until SIGTERM or Ctrl-C; `serve` starts it too.",
    ),
    "demo": LazyCommand(
        "coterie_node.cli.fit:demo_command",
        "Fit death by 1992 in NHEFS on several sites over a ledger, compare with the pooled fit, and replay it all.",
    ),
    "simulate": LazyCommand(
        "coterie_node.cli.fit:simulate_command",
        "Fit a study on files of this machine, all sites in one process, and replay it.",
    ),
    "predict": LazyCommand(
        "coterie_node.cli.results.predict:predict_command",
        "Predict the outcome of rows with a published model: linear predictor, response, errors and limits.",
    ),
    "experiment": LazyCommand(
        "coterie_node.cli.experiment:experiment_command",
        "Fit siloed, pooled, decentralised and ensemble models over permuted trials, and compare their AUC.",
    ),
    "take-part": LazyCommand(
        "coterie_node.cli.fit:take_part_command",
        "Take part in a study as one site; progress as JSON lines.",
        hidden=True,
    ),
    "version": LazyCommand("coterie_node.cli.version:version_command", "Print the version."),
    "prune": LazyCommand(
        "coterie_node.cli.upkeep.prune:prune_command",
        "Delete the payloads of ended studies from this site's store, and destroy its sealing keys of them.",
    ),
    "forms": LazyCommand(
        "coterie_node.cli.upkeep.forms:forms_command",
        "Print in which forms this release meets other releases, and what it does with another version of each.",
    ),
    "explain": LazyCommand(
        "coterie_node.cli.explain:explain_command", "Print what an error code means and what to do."
    ),
    "audit": CommandGroup(
        "Check what the ledger and the store say, without trusting anybody.",
        {
            "history": LazyCommand(
                "coterie_node.cli.audit:audit",
                "List what is on the ledger: who did what, when, with which payload, and what the release gate said.",
            ),
            "replay": LazyCommand(
                "coterie_node.cli.audit:audit",
                "Recompute every server step of a study from the ledger and the store; exit status 0 for PASS alone.",
            ),
            "recompute": LazyCommand(
                "coterie_node.cli.audit:audit",
                "Compute a site's own posts again from its data, and compare its rows with the snapshot it "
                "committed to.",
            ),
            "screen": LazyCommand(
                "coterie_node.cli.audit:audit",
                "Compare the sites of a study with each other: who disagrees, and who moves which coefficient how far.",
            ),
            "export": LazyCommand(
                "coterie_node.cli.audit:audit",
                "Put a study and all that proves it into one bundle, which `coterie audit verify` checks offline.",
            ),
            "verify": LazyCommand(
                "coterie_node.cli.audit:audit",
                "Verify a bundle offline, without keys or data; exit status 0 for PASS alone.",
            ),
            "report": LazyCommand(
                "coterie_node.cli.audit:audit",
                "Replay a study or a bundle and write the report that an auditor files; exit status 0 for PASS alone.",
            ),
        },
    ),
    "person": CommandGroup(
        "Persons of this site: their keys, roles, accounts and log.",
        {
            "add": LazyCommand(
                "coterie_node.cli.site.person:person",
                "Put a person into this site's register, with a passphrase-protected key; the passphrase is asked for.",
            ),
            "remove": LazyCommand(
                "coterie_node.cli.site.person:person",
                "End a person's entry: from now on nothing that the person signs counts here.",
            ),
            "list": LazyCommand(
                "coterie_node.cli.site.person:person",
                "List the persons of this site's register, with those who were removed.",
            ),
            "password": LazyCommand(
                "coterie_node.cli.site.person:person",
                "Give a person a password to sign in on this site's page; it is asked for.",
            ),
            "totp": LazyCommand(
                "coterie_node.cli.site.person:person",
                "Give a person's account an authenticator: a QR code for it, and recovery codes; both are shown once.",
            ),
            "export": LazyCommand(
                "coterie_node.cli.site.person:person",
                "Print this site's register, signed with the site's key, for another site or an auditor.",
            ),
            "log": LazyCommand(
                "coterie_node.cli.site.person:person",
                "Show what persons did at this site; with --verify or --ledger check that nothing was changed or cut.",
            ),
        },
    ),
    "site": CommandGroup(
        "This site's programs, the network's members, and votes about them: a majority decides.",
        {
            "found": LazyCommand(
                "coterie_node.cli.site.found:create_network_command",
                "Found a network with other sites, in two steps: this site's card, then the network.",
            ),
            "invite": LazyCommand(
                "coterie_node.cli.site.enter:invite_site_command",
                "Vote for a newcomer's seat, and write its invitation: peers, genesis, Catalog, the swarm's key for "
                "it alone.",
            ),
            "enter": LazyCommand(
                "coterie_node.cli.site.enter:enter_command",
                "Enter a network that exists, in two steps: this site's card, then a member's invitation.",
            ),
            "start": LazyCommand(
                "coterie_node.cli.site.found:start_command",
                "Start this site's chain node, store and daemon, which run on; those that run stay as they are.",
            ),
            "stop": LazyCommand(
                "coterie_node.cli.site.found:stop_command",
                "End this site's daemon, store and chain node; the daemon finishes the step at hand.",
            ),
            "restart": LazyCommand(
                "coterie_node.cli.site.found:restart_command",
                "End this site's programs, and start them again; `--only node` after a change of node.toml.",
            ),
            "status": LazyCommand(
                "coterie_node.cli.site.found:status_command",
                "Which of this site's programs run; status 1 if one does not. `coterie doctor` says how they are.",
            ),
            "install": LazyCommand(
                "coterie_node.cli.site.found:install_command",
                "Write the systemd units of this site's three programs; the user `coterie` must own the folder.",
            ),
            "run": LazyCommand(
                "coterie_node.cli.site.found:run_command",
                "Run this site's programs in the foreground: start again what ends, and end all of them at Ctrl-C or "
                "SIGTERM.",
            ),
            "list": LazyCommand(
                "coterie_node.cli.site.members:site",
                "List the members, and the votes about members that have not passed yet.",
            ),
            "admit": LazyCommand(
                "coterie_node.cli.site.members:site",
                "Vote to give a hospital a seat, by its card; a founder.json or its text also names its chain node and "
                "store.",
            ),
            "recover": LazyCommand(
                "coterie_node.cli.site.members:site",
                "Vote to give a member new keys, by its new card.json: its old ones are lost or stolen.",
            ),
            "revoke": LazyCommand(
                "coterie_node.cli.site.members:site", "Vote to take a member's seat away: its key signs nothing more."
            ),
            "succeed": LazyCommand(
                "coterie_node.cli.site.members:site",
                "Vote that another Catalog succeeds this one: new contracts, with the same members.",
            ),
            "follow": LazyCommand(
                "coterie_node.cli.upkeep.follow:follow_command",
                "Go over to the Catalog that succeeded this one by vote: new contracts, the same members, keys and "
                "privacy log.",
            ),
            "withdraw": LazyCommand(
                "coterie_node.cli.site.members:site", "Take back this site's votes about a member."
            ),
        },
    ),
    "token": CommandGroup(
        "Tokens of this site's HTTP API.",
        {
            "create": LazyCommand(
                "coterie_node.cli.site.token:token", "Make a token and print it: nobody can read it again."
            ),
            "list": LazyCommand(
                "coterie_node.cli.site.token:token",
                "List the tokens by their IDs, with their scopes and ends; never the tokens themselves.",
            ),
            "revoke": LazyCommand("coterie_node.cli.site.token:token", "End a token at once."),
        },
    ),
    "notices": CommandGroup(
        "Notices of this site's events, by e-mail and webhook.",
        {
            "test": LazyCommand(
                "coterie_node.cli.site.notices:notices",
                "Send a test notice by each way that node.toml names; status 12 if one fails.",
            ),
        },
    ),
    "devnet": CommandGroup(
        "Development networks on this machine: a chain node and a store a site.",
        {
            "up": LazyCommand(
                "coterie_node.cli.devnet:devnet",
                "Start a network in a new folder, or start again what an old one has stopped.",
            ),
            "status": LazyCommand(
                "coterie_node.cli.devnet:devnet",
                "List the network's programs; exit status 1 if one of them does not run.",
            ),
            "logs": LazyCommand("coterie_node.cli.devnet:devnet", "Show the ends of the programs' logs."),
            "down": LazyCommand(
                "coterie_node.cli.devnet:devnet",
                "End all programs; the chain and the blocks stay for audits, unless they are deleted.",
            ),
        },
    ),
    "network": CommandGroup(
        "Found a network: keys, genesis and configurations for all programs.",
        {
            "keys": LazyCommand(
                "coterie_node.cli.network:network",
                "Make this site's keys and print its card, which is public, for the others.",
            ),
            "files": LazyCommand(
                "coterie_node.cli.network:network",
                "Write genesis and configurations from the cards of all sites; the same cards give the same genesis.",
            ),
            "unit": LazyCommand(
                "coterie_node.cli.network:network",
                "Print a systemd unit for this site's Geth or Kubo, with what to do before the first start.",
            ),
            "deploy": LazyCommand(
                "coterie_node.cli.network:network",
                "Deploy the Catalog once for all, and write network.json; `coterie invite` makes invitations of it.",
            ),
            "rekey": LazyCommand(
                "coterie_node.cli.site.rekey:rekey_command",
                "Give the swarm a new key at all sites: one writes the order, and each takes it over from its file.",
            ),
            "trial": LazyCommand(
                "coterie_node.cli.network:network", "Write the folders of three sites for `docker/compose.trial.yaml`."
            ),
        },
    ),
    "release": CommandGroup(
        "Payloads that wait until this site's people let them leave.",
        {
            "list": LazyCommand(
                "coterie_node.cli.study.release:release",
                "Show what waits: the verdict, the counts that could be solved, and with --json every number.",
            ),
            "approve": LazyCommand(
                "coterie_node.cli.study.release:release",
                "Let one payload leave; the site's node posts it at its next turn.",
            ),
            "log": LazyCommand(
                "coterie_node.cli.study.release:release",
                "Show what has left this site by population, how much of it is known, and what would be refused next.",
            ),
            "allow": LazyCommand(
                "coterie_node.cli.study.release:release",
                "Say yes, with a reason, to what the privacy log refused of a study: to this, and to nothing else.",
            ),
        },
    ),
    "data": CommandGroup(
        "This site's own rows, before anything leaves.",
        {
            "check": LazyCommand(
                "coterie_node.cli.data:check_command",
                "Report on a site's rows for a study, at home: missing, wrong, far off, double, unordered; status 10 "
                "for faults.",
            ),
            "profile": LazyCommand(
                "coterie_node.cli.data:profile_command",
                "Write what a site's columns are, in bands and round numbers above a floor, for others to draft a "
                "study with.",
            ),
            "redcap": LazyCommand(
                "coterie_node.cli.sources:redcap_command",
                "Print what the data dictionary of a REDCap project says of a study's variables: types, levels, "
                "ranges, labels.",
            ),
            "omop": LazyCommand(
                "coterie_node.cli.sources:omop_command",
                "Print the SQL of a mapping's OMOP definition for a kind of database; nothing is run.",
            ),
        },
    ),
    "study": CommandGroup(
        "Which learner fits a study, and what a study does.",
        {
            "advise": LazyCommand(
                "coterie_node.cli.study.advise:advise_command",
                "Say which learner fits a study, and why; status 3 if none does. Synthetic rows are tried; no data are "
                "read.",
            ),
            "draft": LazyCommand(
                "coterie_node.cli.study.draft:draft_command",
                "Draft a study and one mapping a site from the sites' own columns, and name what people must confirm.",
            ),
            "amend": LazyCommand(
                "coterie_node.cli.study.amend:amend_command",
                "Propose a new study that names the one it replaces and why; each site approves it like any other.",
            ),
            "propose": LazyCommand(
                "coterie_node.cli.study.decide:propose_command",
                "Propose a study, and approve it for this site; the daemon puts it on the ledger.",
            ),
            "list": LazyCommand(
                "coterie_node.cli.study.show:list_studies_command",
                "List the studies on the ledger, and what this site decided.",
            ),
            "show": LazyCommand(
                "coterie_node.cli.study.show:show_command",
                "Show what a study does: sites, model, what leaves a site, and who must be trusted with what.",
            ),
            "approve": LazyCommand(
                "coterie_node.cli.study.decide:approve_study_command",
                "Approve a study: this site's node will join it and take part with this site's rows.",
            ),
            "decline": LazyCommand(
                "coterie_node.cli.study.decide:decline_command",
                "Decline studies: they cannot run without this site, and the ledger says so.",
            ),
            "withdraw": LazyCommand(
                "coterie_node.cli.study.statements:withdraw_command",
                "Take back this site's proposal, its approval before it has joined, or its votes in a study that runs.",
            ),
            "abort": LazyCommand(
                "coterie_node.cli.study.decide:abort_command",
                "End a study for all sites, without a result.",
            ),
            "resume": LazyCommand(
                "coterie_node.cli.study.decide:resume_command",
                "Vote to go on with a study that a dispute paused; it goes on when most of its sites do.",
            ),
            "supersede": LazyCommand(
                "coterie_node.cli.study.statements:supersede_command",
                "Say on the ledger that a completed study's result is superseded; its proposer decides, or a majority.",
            ),
            "status": LazyCommand(
                "coterie_node.cli.study.show:study_status_command",
                "Show where a study is, which sites it waits for, how it ended, and its last error at this site.",
            ),
            "result": LazyCommand(
                "coterie_node.cli.study.show:result_command",
                "Print the result of a study that this site's node has written, or its table in another format.",
            ),
            "gain": LazyCommand(
                "coterie_node.cli.results.gain:gain_command",
                "Compare this site's own fit with the joint one: widths of intervals, and the AUC on its held-out "
                "rows.",
            ),
            "certify": LazyCommand(
                "coterie_node.cli.study.certify:certify_command",
                "Simulate a study's shape on synthetic data, and store the largest difference to the pooled fit "
                "beside it.",
            ),
            "plot": LazyCommand(
                "coterie_node.cli.results.plot:plot_command",
                "Draw the survival curves of a result, or the incidence of a cause, with limits and numbers at risk.",
            ),
            "compare": LazyCommand(
                "coterie_node.cli.results.compare:compare_command",
                "Compare two fits on the same rows: AIC, BIC, and the test of the larger model where it holds the "
                "smaller one.",
            ),
            "contrast": LazyCommand(
                "coterie_node.cli.results.contrast:contrast_command",
                "Test sums of a result's coefficients, with intervals; or show means at covariate values, and "
                "differences.",
            ),
            "combine": LazyCommand(
                "coterie_node.cli.results.combine:combine_command",
                "Combine one model fitted on several completions of the data (multiple imputation) by Rubin's rules.",
            ),
            "anova": LazyCommand(
                "coterie_node.cli.results.contrast:anova_command",
                "Test the terms of one result (Wald), or each of several results against the next smaller one (LR, or "
                "F).",
            ),
        },
    ),
    "pda": CommandGroup(
        "Tables of the R package pda.",
        {
            "export": LazyCommand(
                "coterie_node.cli.study.pda:pda_app",
                "Write one site's table as pda reads it, without patterns below the study's floor, if the release "
                "gate lets it.",
            ),
        },
    ),
    "seal": CommandGroup(
        "Grants to open a study's sealed payloads, and the destruction of keys.",
        {
            "auditor": LazyCommand(
                "coterie_node.cli.study.seal:seal",
                "Make keys for an auditor; prints the sealing key to give to the sites.",
            ),
            "grant": LazyCommand(
                "coterie_node.cli.study.seal:seal",
                "Let an auditor open what this site can read of one study; it cannot be taken back.",
            ),
            "destroy": LazyCommand(
                "coterie_node.cli.study.seal:seal",
                "Destroy this site's sealing key of one study; what was sealed to it can never be opened here again.",
            ),
        },
    ),
}
