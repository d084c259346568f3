// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {IModel, Post} from "./IModel.sol";

/// @notice What is proposed. Every participant repeats `hash` when it joins.
/// @param hash Digest of the study file that the sites' people approve; never zero.
/// @param order Ids of the participants in turn order, one byte each: 1 to 253 active sites, none twice.
/// @param schedule Opening, loop and closing: up to 32 steps each, at least one in all.
/// @param maxRounds The loop ends after so many rounds, converged or not; at least 1.
/// @param timeout Seconds for each step, 60 to 2,592,000 (30 days).
/// @param silence What to do about a silent site at an `each` step; see Silence.
/// @param least With fewer participants the study does not go on: nobody is excluded below it. 1 to all.
struct Terms {
    bytes32 hash;
    bytes order;
    bytes32[3] schedule;
    uint16 maxRounds;
    uint32 timeout;
    uint8 silence;
    uint8 least;
}

/// @notice What a site puts on record when it joins a study.
/// @param snapshot Digest that commits the site to its rows; zero if it commits to none.
/// @param approvals Digest of the signatures of the persons who approved the study; zero if none signed.
/// @param release Release of the software that the site runs: major * 1,000,000 + minor * 1,000 + patch; zero if unsaid.
struct Joining {
    bytes32 snapshot;
    bytes32 approvals;
    uint32 release;
}

/// @title Members, studies and the order of steps
/// @notice The sites govern it by strict majority of the active ones; it has no owner. A site is a number 1..253 for
/// ever. A study lists its participants in turn order and a schedule of three phases, opening, loop and closing; each
/// is a word of step kinds, one byte a step, ended by 0: 0xff every participant posts, 0xfe the site whose turn it is
/// posts, else that one participant posts.
///
/// Only externally owned accounts act, each in a transaction of its own: a key without code signs every entry.
///
/// A site is *gone* from a study that has not ended when the network has revoked it, or when its key has changed since
/// the study was proposed: it joins, posts and votes there no more. The keys of a study are those at its proposal, so
/// that a majority that takes a seat cannot post as that site.
///
/// A vote counts for 250,000 blocks and for 14 days, while its seat has the key that cast it, and until it is withdrawn.
/// It is counted against the electorate of the moment: a strict majority passes. In a study the electorate is its participants that
/// are neither excluded nor gone; a site about which the others vote is not part of it.
///
/// All bytes that these contracts accept can be read: names, codecs, sizes, digests and terms have bounds.
/// @dev coterie_chain/rules.py is this contract's twin, refusal by refusal; a fuzz test holds them together.
interface ICatalog {
    enum State {
        None,
        Proposed,
        Running,
        Paused,
        Completed,
        Aborted
    }

    /// @notice What becomes of a site that is silent at an `each` step after the deadline, or whose post the others
    /// cannot use: the study waits for it, goes on without it, or ends.
    enum Silence {
        Wait,
        Exclude,
        Abort
    }

    /// @notice A study's moving parts.
    /// @param position The open step, counted over all phases and rounds.
    /// @param attempt The open step's attempt: each new beginning adds one.
    /// @param round Round of the loop, from 0.
    /// @param phase 0 opening, 1 loop, 2 closing, 3 the end.
    /// @param index The open step's place in its phase.
    /// @param turn Place in the order from which the next server is looked for.
    /// @param deadline Last second of a proposal; of the open step, after which a silent site may be skipped or excluded;
    /// of a pause, after which one participant resumes.
    /// @param done The last server post of the loop claimed convergence.
    /// @param active Bitmap of the participants that have not left and not been excluded.
    /// @param able Bitmap of those of them that are not gone.
    /// @param joined Bitmap of the participants that have joined.
    /// @param posted Bitmap of the participants that have posted at the open `each` step.
    /// @param basis Digest that the next post must build on.
    /// @param kind Kind of the open step; 0 unless the study runs.
    /// @param server The site whose turn it is; 0 unless the study runs.
    /// @param proposer The site that proposed the study.
    /// @param superseded Whether its result was superseded.
    struct Status {
        State state;
        uint32 position;
        uint16 attempt;
        uint32 round;
        uint8 phase;
        uint8 index;
        uint8 turn;
        uint64 deadline;
        bool done;
        uint256 active;
        uint256 able;
        uint256 joined;
        uint256 posted;
        bytes32 basis;
        uint8 kind;
        uint8 server;
        uint8 proposer;
        bool superseded;
    }

    /// @notice A site was admitted (a founder too) and its Model deployed.
    event SiteAdmitted(uint8 indexed site, bytes32 name, address key, bytes32 sealing, bytes32 peer, address model);
    /// @notice A site voted to admit another.
    event AdmissionVoted(
        uint8 indexed by, bytes32 name, address key, bytes32 sealing, bytes32 peer, bytes32 motion
    );
    /// @notice A site was revoked, for ever.
    event SiteRevoked(uint8 indexed site);
    /// @notice A site voted to revoke a site.
    event RevocationVoted(uint8 indexed by, uint8 indexed site, bytes32 motion);
    /// @notice A site offered its seat to a new key of its own.
    event KeyOffered(uint8 indexed site, address key, bytes32 sealing);
    /// @notice A site has a new key, accepted or voted.
    event KeyChanged(uint8 indexed site, address key, bytes32 sealing);
    /// @notice A site voted to give a site a new key.
    event RecoveryVoted(uint8 indexed by, uint8 indexed site, address key, bytes32 sealing, bytes32 motion);
    /// @notice A site voted for the Catalog that succeeds this one.
    event SuccessionVoted(uint8 indexed by, address next, bytes32 motion);
    /// @notice Another Catalog succeeds this one.
    event CatalogSucceeded(address indexed next);
    /// @notice A site withdrew its vote.
    event VoteWithdrawn(uint8 indexed by, bytes32 motion);

    /// @notice A study was proposed; its proposer has joined it.
    event StudyProposed(uint64 indexed study, uint8 indexed by, Terms terms);
    /// @notice A participant joined by repeating the study's hash.
    event StudyJoined(uint64 indexed study, uint8 indexed by, Joining joining);
    /// @notice A participant declined a proposed study, or its proposer withdrew it.
    event StudyDeclined(uint64 indexed study, uint8 indexed by, uint16 reason);
    /// @notice The last participant has joined; the first step is open.
    event StudyStarted(uint64 indexed study);
    /// @notice The last step of the schedule was posted. In its transaction this log precedes that post's, Recorded.
    event StudyCompleted(uint64 indexed study);
    /// @notice A server was silent at this position and attempt; the next site has the turn.
    event ServerSkipped(uint64 indexed study, uint8 indexed by, uint32 position, uint16 attempt, uint8 server);
    /// @notice A participant voted to exclude a site that was silent at this position and attempt.
    event ExclusionVoted(
        uint64 indexed study, uint8 indexed by, uint32 position, uint16 attempt, uint8 site, bytes32 motion
    );
    /// @notice A site was excluded for its silence, or its unusable post, at this position and attempt; the step begins
    /// again.
    event SiteExcluded(uint64 indexed study, uint8 indexed site, uint32 position, uint16 attempt);
    /// @notice A site left at this position and attempt; the study goes on without it, and the step begins again.
    event SiteLeft(uint64 indexed study, uint8 indexed by, uint16 reason, uint32 position, uint16 attempt);
    /// @notice A participant said that it cannot use a site's post at this position and attempt.
    event UnavailabilityVoted(
        uint64 indexed study,
        uint8 indexed by,
        uint32 position,
        uint16 attempt,
        uint8 site,
        uint16 reason,
        bytes32 motion
    );
    /// @notice The study went back to this position, whose post by this site a majority of the others cannot use.
    event StepReopened(uint64 indexed study, uint8 indexed site, uint32 position, uint16 attempt);
    /// @notice A participant recomputed another digest than the one that this site posted; a running study is paused.
    event Disputed(
        uint64 indexed study,
        uint8 indexed by,
        uint32 position,
        uint16 attempt,
        uint8 site,
        bytes32 posted,
        bytes32 recomputed
    );
    /// @notice A participant paused a running study.
    event StudyPaused(uint64 indexed study, uint8 indexed by, uint16 reason);
    /// @notice A participant voted to go on.
    event ResumeVoted(uint64 indexed study, uint8 indexed by, bytes32 motion);
    /// @notice A paused study goes on.
    event StudyResumed(uint64 indexed study);
    /// @notice A participant voted to end the study without a result.
    event AbortVoted(uint64 indexed study, uint8 indexed by, uint16 reason, uint8 culprit, bytes32 motion);
    /// @notice The study ended without a result; `culprit` is 0, who left, or a site whose fault was proved or voted.
    event StudyAborted(uint64 indexed study, uint8 indexed by, uint16 reason, uint8 culprit);
    /// @notice A participant voted that a completed study's result is superseded.
    event SupersessionVoted(uint64 indexed study, uint8 indexed by, uint64 successor, bytes32 reason, bytes32 motion);
    /// @notice A completed study's result is superseded, by another study's or (0) by none.
    event StudySuperseded(uint64 indexed study, uint64 successor, bytes32 reason);
    /// @notice A participant computed its own posts again from its rows, and says what came out.
    event SiteAttested(uint64 indexed study, uint8 indexed by, bytes32 snapshot, uint16 verdict);

    /// @notice The caller, or the key of a seat, is a contract, or the transaction came through one.
    error NotExternal();
    /// @notice The calldata is not the canonical encoding of the move's arguments, no byte more.
    error BadCall();
    /// @notice The caller holds no active site's key.
    error NotSite();
    /// @notice A site holds that key, or it is the zero address.
    error KeyTaken();
    /// @notice A name is 1 to 31 of a-z, 0-9 and -, and does not begin with -.
    error BadName();
    /// @notice A site has had that name.
    error NameTaken();
    /// @notice 253 sites are the most.
    error TooManySites();
    /// @notice No active site has that id.
    error UnknownSite();
    /// @notice That seat was not offered to the caller.
    error NotOffered();
    /// @notice The caller has voted on it, joined, paused or disputed at this position already.
    error AlreadyVoted();
    /// @notice The caller has no vote for that motion that counts.
    error NoVote();
    /// @notice A term is zero or out of range, or lists are empty or differ in length.
    error BadTerms();
    /// @notice The order is empty, repeats a site or names one that is not active.
    error BadOrder();
    /// @notice The schedule is empty, names a site outside the order or has a gap.
    error BadSchedule();
    /// @notice The caller does not take part in the study, or no longer.
    error NotParticipant();
    /// @notice The site's key has changed since the study was proposed: it takes no further part.
    error SeatChanged();
    /// @notice 16 proposals of this site are open.
    error TooManyProposals();
    /// @notice The proposal has expired.
    error Expired(uint64 deadline);
    /// @notice The study's state does not allow the move.
    error BadState(uint8 state);
    /// @notice The hash repeated is not the study's.
    error HashMismatch();
    /// @notice The record's sender does not hold the key of the Model's site.
    error NotOwner();
    /// @notice Only the site's own Model may report a post.
    error NotModel();
    /// @notice The payload's SHA-256, or the digest in its CID, is zero.
    error EmptyPost();
    /// @notice The payload's codec is neither raw nor dag-pb, or its size is not 1 to 134,217,728 bytes.
    error BadPayload();
    /// @notice Another step is open.
    error WrongStep(uint32 position, uint16 attempt);
    /// @notice The post builds on another server post than the last one.
    error BasisMismatch(bytes32 expected);
    /// @notice Another site posts at this step.
    error NotYourTurn(uint8 expected);
    /// @notice The site has posted at this step.
    error Overwrite();
    /// @notice Only a server step can be skipped.
    error NotAServerStep();
    /// @notice Sites are excluded at an `each` step only.
    error NotAnEachStep();
    /// @notice The deadline has not passed.
    error NotYet(uint64 deadline);
    /// @notice The study does not exclude silent sites.
    error NotAllowed();
    /// @notice That site has posted, casts this very vote or takes no part.
    error NotSilent();
    /// @notice There is no such post of another site, or the digest recomputed is the one posted.
    error NotPosted();
    /// @notice The study cannot go on without that site: its schedule names it, or too few would be left.
    error SiteNeeded(uint8 site);

    /// @notice Vote to admit a site; a majority of the active sites admits it.
    /// @param sealing X25519 key to which payloads for the site are sealed; never zero.
    /// @param peer Ed25519 key of the site's swarm peer.
    function admit(bytes32 name, address key, bytes32 sealing, bytes32 peer) external;

    /// @notice Vote to revoke a site. Its records stay.
    function revoke(uint8 site) external;

    /// @notice Vote to give a site that lost its key a new one. The votes are void once the seat's key changes.
    function recover(uint8 site, address key, bytes32 sealing) external;

    /// @notice Offer the caller's seat to a new key of its own, which must accept.
    function offer(address key, bytes32 sealing) external;

    /// @notice Take a seat that was offered to the caller. It is gone from the studies that have not ended.
    function accept(uint8 site) external;

    /// @notice Vote that another Catalog succeeds this one. Nothing else changes: the studies of this one go on.
    function succeed(address next) external;

    /// @notice Withdraw the caller's vote for a motion that has not passed.
    /// @param motion As in the event of the vote: keccak256(abi.encode(selector of the move, its arguments)), for
    /// `exclude` and `unavailable` with position and attempt, for `recover` with `changed` of the seat at the end,
    /// for `unavailable` without the reason.
    function withdraw(bytes32 motion) external;

    /// @notice Propose a study and join it. It can be joined for 30 days; 16 proposals of a site can be open.
    function propose(Terms calldata proposal, Joining calldata joining) external returns (uint64 study);

    /// @notice Join a proposed study by repeating its hash; it starts when every participant has joined.
    function join(uint64 study, bytes32 hash, Joining calldata joining) external;

    /// @notice Decline proposed studies, or withdraw one's own, all or none: they end.
    /// @param reason A code, never text.
    function decline(uint64[] calldata studies, uint16 reason) external;

    /// @notice A Model reports a post; returns the kind and the round of the step it stands at.
    /// @param caller Who called the Model.
    function onPost(uint8 site, address caller, Post calldata post) external returns (uint8 kind, uint32 round);

    /// @notice Pass over a server that is gone, or silent after the deadline.
    function skip(uint64 study) external;

    /// @notice Vote to exclude a site that is silent at an `each` step after the deadline; a majority of the others
    /// excludes it, and one vote does if it is gone.
    function exclude(uint64 study, uint8 site) external;

    /// @notice Vote that a site's post, at the open step or the last one finished, cannot be used: the payload cannot be
    /// fetched, or is not what the protocol allows. By a majority of the others the study goes back to that step and
    /// begins it again, as its rule on silence says: with the site (also where it cannot do without it), without it, or
    /// it ends. A server whose post cannot be used is passed over, whatever the rule. The site is named in each case.
    /// @param reason A code, never text; what each voter found, and no part of the motion.
    function unavailable(uint64 study, uint32 position, uint16 attempt, uint8 site, uint16 reason) external;

    /// @notice Say that the caller recomputed another digest than a site posted at a finished step: once per caller and
    /// position. A running study is paused; a completed one stays so, with the dispute on record.
    function dispute(uint64 study, uint32 position, uint16 attempt, uint8 site, bytes32 recomputed) external;

    /// @notice Pause a running study, once per caller and position.
    /// @param reason A code, never text.
    function pause(uint64 study, uint16 reason) external;

    /// @notice Vote to go on with a paused study. A majority of its participants resumes it, and after 7 days any one.
    function resume(uint64 study) external;

    /// @notice End a study that has not ended, without a result, or leave it.
    /// A caller that names itself leaves: a study that excludes silent sites goes on, if it can without that site.
    /// A caller alone ends a proposal; a study that does not exclude sites, naming nobody; and one that cannot go on
    /// without a site that is gone, or silent after the deadline, naming that. Else a majority of those that it does not
    /// name ends it.
    /// @param reason A code, never text.
    /// @param culprit The site whose fault it is; 0 if nobody's.
    function abort(uint64 study, uint16 reason, uint8 culprit) external;

    /// @notice Say that a completed study's result is superseded, once. The proposer alone may, or a majority.
    /// @param by The study whose result replaces it; 0 if none does.
    /// @param reason Digest of a text that is elsewhere; never zero.
    function supersede(uint64 study, uint64 by, bytes32 reason) external;

    /// @notice Say that the caller computed its own posts in an ended study again from its rows.
    /// @param snapshot Digest of those rows; never zero.
    /// @param verdict A code, never text.
    function attest(uint64 study, bytes32 snapshot, uint16 verdict) external;

    /// @notice Number of this release of the contracts.
    function VERSION() external view returns (uint32);

    /// @notice The Catalog that succeeds this one; zero if none does.
    function successor() external view returns (address);

    /// @notice How many sites were ever admitted; their ids are 1 to this number.
    function siteCount() external view returns (uint8);

    /// @notice One site's entry; `changed` counts the network's changes of keys up to this key's.
    function seat(uint8 site)
        external
        view
        returns (bytes32 name, address key, bytes32 sealing, bytes32 peer, IModel model, bool active, uint64 changed);

    /// @notice The key to which a site has offered its seat; zero if none.
    function offered(uint8 site) external view returns (address key, bytes32 sealing);

    /// @notice Id of the active site that holds a key, else 0.
    function siteOf(address key) external view returns (uint8);

    /// @notice How many studies were proposed; their ids are 1 to this number.
    function studyCount() external view returns (uint64);

    /// @notice Bitmap of the active sites whose votes for a motion count now.
    function votes(bytes32 motion) external view returns (uint256);

    /// @notice What was proposed.
    function terms(uint64 study) external view returns (Terms memory);

    /// @notice Where a study stands.
    function status(uint64 study) external view returns (Status memory);
}
