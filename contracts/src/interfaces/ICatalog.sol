// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {IModel, Post} from "./IModel.sol";

/// @title Members, studies and the order of steps
/// @notice The sites govern it by strict majority of the active ones; it has no owner. A site is a number 1..253 for
/// ever. A study lists its participants in turn order and a schedule of three phases, opening, loop and closing; each
/// is a word of step kinds, one byte a step, ended by 0: 0xff every participant posts, 0xfe the site whose turn it is
/// posts, else that one participant posts. In a study's votes its participants count until they are excluded from it,
/// those too that the network has revoked.
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

    /// @notice What happens to a silent site at an `each` step after the deadline.
    enum Silence {
        Wait,
        Exclude,
        Abort
    }

    /// @notice A study's moving parts.
    /// @param position The open step, counted over all phases and rounds.
    /// @param attempt How often the open step was begun again.
    /// @param round Round of the loop, from 0.
    /// @param phase 0 opening, 1 loop, 2 closing, 3 the end.
    /// @param index The open step's place in its phase.
    /// @param turn Place in the order from which the next server is looked for.
    /// @param deadline Second after which a silent site may be skipped or excluded.
    /// @param done The last server post of the loop claimed convergence.
    /// @param active Bitmap of the participants that have not been excluded.
    /// @param joined Bitmap of the participants that have joined.
    /// @param posted Bitmap of the participants that have posted at the open `each` step.
    /// @param basis Digest that the next post must build on.
    /// @param kind Kind of the open step; 0 unless the study runs.
    /// @param server The site whose turn it is; 0 unless the study runs.
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
        uint256 joined;
        uint256 posted;
        bytes32 basis;
        uint8 kind;
        uint8 server;
    }

    /// @notice A site was admitted (a founder too) and its Model deployed.
    event SiteAdmitted(uint8 indexed site, bytes32 name, address key, bytes32 sealing, bytes32 peer, address model);
    /// @notice A site voted to admit another.
    event AdmissionVoted(uint8 indexed by, bytes32 name, address key, bytes32 sealing, bytes32 peer);
    /// @notice A site was revoked, for ever.
    event SiteRevoked(uint8 indexed site);
    /// @notice A site voted to revoke a site.
    event RevocationVoted(uint8 indexed by, uint8 indexed site);
    /// @notice A site offered its seat to a new key of its own.
    event KeyOffered(uint8 indexed site, address key, bytes32 sealing);
    /// @notice A site has a new key, accepted or voted.
    event KeyChanged(uint8 indexed site, address key, bytes32 sealing);
    /// @notice A site voted to give a site a new key.
    event RecoveryVoted(uint8 indexed by, uint8 indexed site, address key, bytes32 sealing);

    /// @notice A study was proposed; its proposer has joined it.
    event StudyProposed(
        uint64 indexed study,
        uint8 indexed by,
        bytes32 hash,
        bytes order,
        bytes32[3] schedule,
        uint16 maxRounds,
        uint32 timeout,
        uint8 silence
    );
    /// @notice A participant joined by repeating the study's hash, and committed to the rows that it will use.
    event StudyJoined(uint64 indexed study, uint8 indexed by, bytes32 snapshot);
    /// @notice The last participant has joined; the first step is open.
    event StudyStarted(uint64 indexed study);
    /// @notice The last step of the schedule was posted. In its transaction this log precedes that post's, Recorded.
    event StudyCompleted(uint64 indexed study);
    /// @notice A server was silent at this position and attempt; the next site has the turn.
    event ServerSkipped(uint64 indexed study, uint8 indexed by, uint32 position, uint16 attempt, uint8 server);
    /// @notice A participant voted to exclude a site that was silent at this position and attempt.
    event ExclusionVoted(uint64 indexed study, uint8 indexed by, uint32 position, uint16 attempt, uint8 site);
    /// @notice A site was excluded for its silence at this position and attempt; the step begins again.
    event SiteExcluded(uint64 indexed study, uint8 indexed site, uint32 position, uint16 attempt);
    /// @notice A participant recomputed another digest than the one posted; the study is paused.
    event Disputed(uint64 indexed study, uint8 indexed by, uint32 position, bytes32 posted, bytes32 recomputed);
    /// @notice A participant paused a running study.
    event StudyPaused(uint64 indexed study, uint8 indexed by, uint16 reason);
    /// @notice A participant voted to go on.
    event ResumeVoted(uint64 indexed study, uint8 indexed by);
    /// @notice A paused study goes on, or stays completed if it was disputed after its end.
    event StudyResumed(uint64 indexed study);
    /// @notice A participant ended the study without a result.
    event StudyAborted(uint64 indexed study, uint8 indexed by, uint16 reason);

    /// @notice The caller holds no active site's key.
    error NotSite();
    /// @notice A site holds that key, or it is the zero address.
    error KeyTaken();
    /// @notice A site has had that name.
    error NameTaken();
    /// @notice 253 sites are the most.
    error TooManySites();
    /// @notice No active site has that id.
    error UnknownSite();
    /// @notice That seat was not offered to the caller.
    error NotOffered();
    /// @notice The caller has voted on it, or joined, already.
    error AlreadyVoted();
    /// @notice A term is zero or out of range, or the founders' lists differ in length.
    error BadTerms();
    /// @notice The order is empty, repeats a site or names one that is not active.
    error BadOrder();
    /// @notice The schedule is empty, names a site outside the order or has a gap.
    error BadSchedule();
    /// @notice The caller does not take part in the study, or no longer.
    error NotParticipant();
    /// @notice The study's state does not allow the move.
    error BadState(uint8 state);
    /// @notice The hash repeated is not the study's.
    error HashMismatch();
    /// @notice The record's sender does not hold the key of the Model's site.
    error NotOwner();
    /// @notice Only the site's own Model may report a post.
    error NotModel();
    /// @notice The payload's SHA-256 is zero.
    error EmptyPost();
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
    /// @notice The schedule names that site, so that the study cannot go on without it.
    error SiteNeeded(uint8 site);

    /// @notice Vote to admit a site; a majority of the active sites admits it.
    /// @param sealing X25519 key to which payloads for the site are sealed.
    /// @param peer Ed25519 key of the site's swarm peer.
    function admit(bytes32 name, address key, bytes32 sealing, bytes32 peer) external;

    /// @notice Vote to revoke a site. Its records stay.
    function revoke(uint8 site) external;

    /// @notice Vote to give a site that lost its key a new one.
    function recover(uint8 site, address key, bytes32 sealing) external;

    /// @notice Offer the caller's seat to a new key of its own, which must accept.
    function offer(address key, bytes32 sealing) external;

    /// @notice Take a seat that was offered to the caller.
    function accept(uint8 site) external;

    /// @notice Propose a study and join it.
    /// @param hash Digest of the study file that the sites' people approve.
    /// @param order Ids of the participants in turn order, one byte each.
    /// @param schedule Opening, loop and closing.
    /// @param maxRounds The loop ends after so many rounds, converged or not.
    /// @param timeout Seconds for each step.
    /// @param silence What to do about a silent site at an `each` step; see Silence.
    /// @param snapshot The proposer's commitment to its rows, as in `join`.
    function propose(
        bytes32 hash,
        bytes calldata order,
        bytes32[3] calldata schedule,
        uint16 maxRounds,
        uint32 timeout,
        uint8 silence,
        bytes32 snapshot
    ) external returns (uint64 study);

    /// @notice Join a proposed study by repeating its hash; it starts when every participant has joined.
    /// @param snapshot Digest that commits the site to its rows; zero if it commits to none.
    function join(uint64 study, bytes32 hash, bytes32 snapshot) external;

    /// @notice A Model reports a post; returns the kind and the round of the step it stands at.
    /// @param caller Who called the Model.
    function onPost(uint8 site, address caller, Post calldata post) external returns (uint8 kind, uint32 round);

    /// @notice Pass over a server that is silent after the deadline.
    function skip(uint64 study) external;

    /// @notice Vote to exclude a site that is silent at an `each` step after the deadline.
    function exclude(uint64 study, uint8 site) external;

    /// @notice Pause a running or completed study: the caller recomputed another digest for a finished step.
    function dispute(uint64 study, uint32 position, bytes32 posted, bytes32 recomputed) external;

    /// @notice Pause a running study.
    /// @param reason A code, never text.
    function pause(uint64 study, uint16 reason) external;

    /// @notice Vote to go on with a paused study; a majority of its participants resumes it.
    function resume(uint64 study) external;

    /// @notice End a study that has not ended, without a result.
    /// @param reason A code, never text.
    function abort(uint64 study, uint16 reason) external;

    /// @notice How many sites were ever admitted; their ids are 1 to this number.
    function siteCount() external view returns (uint8);

    /// @notice One site's entry.
    function seat(uint8 site)
        external
        view
        returns (bytes32 name, address key, bytes32 sealing, bytes32 peer, IModel model, bool active);

    /// @notice The key to which a site has offered its seat; zero if none.
    function offered(uint8 site) external view returns (address key, bytes32 sealing);

    /// @notice Id of the active site that holds a key, else 0.
    function siteOf(address key) external view returns (uint8);

    /// @notice How many studies were proposed; their ids are 1 to this number.
    function studyCount() external view returns (uint64);

    /// @notice What was proposed.
    function terms(uint64 study)
        external
        view
        returns (
            bytes32 hash,
            bytes memory order,
            bytes32[3] memory schedule,
            uint16 maxRounds,
            uint32 timeout,
            uint8 silence
        );

    /// @notice Where a study stands.
    function status(uint64 study) external view returns (Status memory);
}
