// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {ICatalog, Joining, Terms} from "./interfaces/ICatalog.sol";
import {IModel, Post} from "./interfaces/IModel.sol";
import {Model} from "./Model.sol";

/// @notice Implements ICatalog, which documents it.
contract Catalog is ICatalog {
    struct Seat {
        bytes32 name;
        address key;
        bytes32 sealing;
        bytes32 peer;
        IModel model;
        uint64 changed; // the network's count of key changes when this key took the seat
        address offeredKey;
        bytes32 offeredSealing;
    }

    /// All that a post changes or needs in one slot, so that a step costs one write.
    struct Step {
        State state;
        uint8 phase;
        uint8 index;
        uint8 turn;
        bool done;
        uint16 attempt;
        uint32 position;
        uint32 round;
        uint64 deadline; // of a proposal, of the open step, of a pause
        uint32 timeout;
        uint16 maxRounds;
        uint8 silence;
        uint8 least;
    }

    struct Origin {
        uint64 changes; // the network's count of key changes when the study was proposed
        uint16 attempt; // with which a step begins: above every attempt of a step that was reopened
        uint8 proposer;
        bool superseded;
    }

    struct Study {
        Step step;
        Step last; // the last finished step as it stood, to which the study can go back
        uint256 active;
        uint256 places; // of the active sites in the order: a server is found without reading the order
        uint256 joined;
        uint256 posted; // bit 0 is always set: a slot that is never zero costs no more at a round's first post
        bytes32 basis;
        bytes32 before; // the basis before the last finished step changed it
        Origin origin;
        bytes32 hash;
        bytes32[3] schedule;
        bytes order;
        mapping(uint32 position => uint256) disputed; // bitmap of who has disputed a post at this position
        mapping(uint32 position => uint256) paused; // bitmap of who has paused the study at this position
    }

    struct Vote {
        uint64 changed; // of the seat that cast it
        uint64 number; // of the block
        uint64 time;
    }

    struct Ballot {
        uint256 yes;
        mapping(uint8 site => Vote) cast;
    }

    /// @inheritdoc ICatalog
    uint32 public constant override VERSION = 2;

    uint8 private constant EACH = 0xff;
    uint8 private constant SERVER = 0xfe;
    uint8 private constant MAX_SITES = 253;
    uint8 private constant LOOP = 1;
    uint8 private constant CLOSED = 3;
    uint256 private constant NOBODY = 1;
    uint256 private constant MAX_OPEN = 16;
    uint256 private constant VOTE_BLOCKS = 250_000;
    uint256 private constant VOTE_TIME = 14 days;
    uint256 private constant MAX_NAME = 31;
    uint32 private constant MIN_TIMEOUT = 60;
    uint32 private constant MAX_TIMEOUT = 30 days;
    uint64 private constant PROPOSAL_TIME = 30 days;
    uint64 private constant PAUSE_TIME = 7 days;
    uint40 private constant MAX_SIZE = 1 << 27;

    /// @inheritdoc ICatalog
    uint8 public override siteCount;
    /// @inheritdoc ICatalog
    uint64 public override studyCount;
    uint64 private _changes; // of keys, over all seats

    uint256 private _members; // bitmap of the active sites
    mapping(uint8 site => Seat) private _seats;
    mapping(address key => uint8) private _holder; // of the sites' current keys, active or not
    mapping(bytes32 name => bool) private _named;
    mapping(uint64 study => Study) private _studies;
    mapping(bytes32 motion => Ballot) private _ballots;
    mapping(uint8 site => uint64[MAX_OPEN]) private _proposals; // the last studies that a site has proposed
    /// @inheritdoc ICatalog
    address public override successor;

    /// Calldata of so many words and no more: an entry can be held against the very call that its site signed.
    modifier exact(uint256 words) {
        if (msg.data.length != 4 + 32 * words) revert BadCall();
        _;
    }

    /// Found the network. The lists are parallel.
    constructor(bytes32[] memory names, address[] memory keys, bytes32[] memory sealing, bytes32[] memory peers) {
        uint256 n = names.length;
        if (keys.length != n || sealing.length != n || peers.length != n) revert BadTerms();
        for (uint256 i; i < n; i++) {
            _requireNew(names[i], keys[i], sealing[i]);
            _admit(names[i], keys[i], sealing[i], peers[i]);
        }
    }

    /// @inheritdoc ICatalog
    function admit(bytes32 name, address key, bytes32 sealing, bytes32 peer) external override exact(4) {
        uint8 me = _caller();
        _requireNew(name, key, sealing);
        bytes32 motion = keccak256(abi.encode(msg.sig, name, key, sealing, peer));
        bool passed = _vote(motion, me, _members);
        emit AdmissionVoted(me, name, key, sealing, peer, motion);
        if (passed) _admit(name, key, sealing, peer);
    }

    /// @inheritdoc ICatalog
    function revoke(uint8 site) external override exact(1) {
        uint8 me = _caller();
        _requireActive(site);
        bytes32 motion = keccak256(abi.encode(msg.sig, site));
        bool passed = _vote(motion, me, _members);
        emit RevocationVoted(me, site, motion);
        if (!passed) return;
        _members &= ~_bit(site);
        emit SiteRevoked(site);
    }

    /// @inheritdoc ICatalog
    function recover(uint8 site, address key, bytes32 sealing) external override exact(3) {
        uint8 me = _caller();
        _requireActive(site);
        _requireFree(key, sealing);
        bytes32 motion = keccak256(abi.encode(msg.sig, site, key, sealing, _seats[site].changed));
        bool passed = _vote(motion, me, _members);
        emit RecoveryVoted(me, site, key, sealing, motion);
        if (passed) _rekey(site, key, sealing);
    }

    /// @inheritdoc ICatalog
    function offer(address key, bytes32 sealing) external override exact(2) {
        uint8 me = _caller();
        _requireFree(key, sealing);
        (_seats[me].offeredKey, _seats[me].offeredSealing) = (key, sealing);
        emit KeyOffered(me, key, sealing);
    }

    /// @inheritdoc ICatalog
    function accept(uint8 site) external override exact(1) {
        if (msg.sender != tx.origin) revert NotExternal();
        _requireActive(site);
        if (_seats[site].offeredKey != msg.sender) revert NotOffered();
        bytes32 sealing = _seats[site].offeredSealing;
        _requireFree(msg.sender, sealing);
        _rekey(site, msg.sender, sealing);
    }

    /// @inheritdoc ICatalog
    function succeed(address next) external override exact(1) {
        uint8 me = _caller();
        if (next.code.length == 0 || next == address(this)) revert BadTerms();
        bytes32 motion = keccak256(abi.encode(msg.sig, next));
        bool passed = _vote(motion, me, _members);
        emit SuccessionVoted(me, next, motion);
        if (!passed) return;
        successor = next;
        emit CatalogSucceeded(next);
    }

    /// @inheritdoc ICatalog
    function withdraw(bytes32 motion) external override exact(1) {
        uint8 me = _caller();
        Ballot storage b = _ballots[motion];
        if (!_has(_counted(b, _members), me)) revert NoVote();
        b.yes &= ~_bit(me);
        emit VoteWithdrawn(me, motion);
    }

    /// @inheritdoc ICatalog
    function propose(Terms calldata proposal, Joining calldata joining) external override returns (uint64 study) {
        uint8 me = _caller();
        _requireCanonical(abi.encode(proposal, joining));
        uint256 parties = _requireTerms(proposal);
        if (!_has(parties, me)) revert NotParticipant();
        uint256 place = _freePlace(me);
        study = ++studyCount;
        _proposals[me][place] = study;
        Study storage s = _studies[study];
        (s.hash, s.basis, s.before) = (proposal.hash, proposal.hash, proposal.hash);
        (s.order, s.schedule) = (proposal.order, proposal.schedule);
        (s.active, s.places, s.posted) = (parties, (1 << proposal.order.length) - 1, NOBODY);
        s.origin = Origin(_changes, 0, me, false);
        s.step = _proposed(proposal);
        emit StudyProposed(study, me, proposal);
        _join(study, s, me, joining);
    }

    /// @inheritdoc ICatalog
    function join(uint64 study, bytes32 hash, Joining calldata joining) external override exact(5) {
        (Study storage s, uint8 me) = _participant(study);
        _requireState(s.step.state, State.Proposed);
        if (block.timestamp > s.step.deadline) revert Expired(s.step.deadline);
        if (hash != s.hash) revert HashMismatch();
        _join(study, s, me, joining);
    }

    /// @inheritdoc ICatalog
    function decline(uint64[] calldata studies, uint16 reason) external override {
        _requireCanonical(abi.encode(studies, reason));
        if (studies.length == 0) revert BadTerms();
        for (uint256 i; i < studies.length; i++) {
            (Study storage s, uint8 me) = _party(studies[i]);
            _requireState(s.step.state, State.Proposed);
            s.step.state = State.Aborted;
            emit StudyDeclined(studies[i], me, reason);
        }
    }

    /// @inheritdoc ICatalog
    function onPost(uint8 site, address caller, Post calldata post)
        external
        override
        returns (uint8 kind, uint32 round)
    {
        if (msg.sender != address(_seats[site].model)) revert NotModel();
        if (caller != tx.origin || siteOf(caller) != site) revert NotOwner();
        _requirePayload(post);
        Study storage s = _studies[post.study];
        Step memory t = s.step;
        _requireState(t.state, State.Running);
        _requireKey(s, site);
        if (post.position != t.position || post.attempt != t.attempt) revert WrongStep(t.position, t.attempt);
        if (post.basis != s.basis) revert BasisMismatch(s.basis);
        (kind, round) = (_kind(s, t), t.round);
        if (_takeSlot(s, t, site, kind)) _advance(s, t, kind, post);
    }

    /// @inheritdoc ICatalog
    function skip(uint64 study) external override exact(1) {
        (Study storage s, Step memory t, uint8 me) = _running(study);
        if (_kind(s, t) != SERVER) revert NotAServerStep();
        uint8 server = _server(s, t);
        if (!_gone(s, server)) _requireLate(t);
        emit ServerSkipped(study, me, t.position, t.attempt, server);
        _passTurn(s, t);
        _beginAgain(s, t);
    }

    /// @inheritdoc ICatalog
    function exclude(uint64 study, uint8 site) external override exact(2) {
        (Study storage s, Step memory t, uint8 me) = _running(study);
        if (t.silence != uint8(Silence.Exclude)) revert NotAllowed();
        if (_kind(s, t) != EACH) revert NotAnEachStep();
        bool gone = _gone(s, site);
        if (!gone) _requireLate(t);
        if (site == me || _has(s.posted, site) || !_has(s.active, site)) revert NotSilent();
        if (!_dispensable(s, t, site)) revert SiteNeeded(site);
        bytes32 motion = keccak256(abi.encode(msg.sig, study, t.position, t.attempt, site));
        bool passed = gone || _vote(motion, me, _others(s, site));
        emit ExclusionVoted(study, me, t.position, t.attempt, site, motion);
        if (!passed) return;
        _remove(s, site);
        emit SiteExcluded(study, site, t.position, t.attempt);
        _beginAgain(s, t);
    }

    /// @inheritdoc ICatalog
    function unavailable(uint64 study, uint32 position, uint16 attempt, uint8 site, uint16 reason) external override exact(5) {
        (Study storage s, Step memory t, uint8 me) = _running(study);
        Step memory back = position == t.position ? t : s.last;
        if (position != back.position || attempt != back.attempt || position + 1 < t.position) {
            revert WrongStep(t.position, t.attempt);
        }
        if (site == me || !_has(s.active, site) || _posted(study, position, attempt, site) == 0) revert NotPosted();
        bytes32 motion = keccak256(abi.encode(msg.sig, study, position, attempt, site));
        bool passed = _vote(motion, me, _others(s, site));
        emit UnavailabilityVoted(study, me, position, attempt, site, reason, motion);
        if (passed) _blame(study, back, me, site, reason);
    }

    /// @inheritdoc ICatalog
    function dispute(uint64 study, uint32 position, uint16 attempt, uint8 site, bytes32 recomputed) external override exact(5) {
        (Study storage s, uint8 me) = _party(study);
        Step memory t = s.step;
        if (t.state != State.Running && t.state != State.Completed) revert BadState(uint8(t.state));
        if (position >= t.position) revert WrongStep(t.position, t.attempt);
        bytes32 posted = _posted(study, position, attempt, site);
        if (posted == 0 || posted == recomputed || recomputed == 0) revert NotPosted();
        if (_has(s.disputed[position], me)) revert AlreadyVoted();
        s.disputed[position] |= _bit(me);
        if (t.state == State.Running) {
            _requireKey(s, me);
            _pause(s);
        }
        emit Disputed(study, me, position, attempt, site, posted, recomputed);
    }

    /// @inheritdoc ICatalog
    function pause(uint64 study, uint16 reason) external override exact(2) {
        (Study storage s, Step memory t, uint8 me) = _running(study);
        if (_has(s.paused[t.position], me)) revert AlreadyVoted();
        s.paused[t.position] |= _bit(me);
        _pause(s);
        emit StudyPaused(study, me, reason);
    }

    /// @inheritdoc ICatalog
    function resume(uint64 study) external override exact(1) {
        (Study storage s, uint8 me) = _participant(study);
        Step memory t = s.step;
        _requireState(t.state, State.Paused);
        bytes32 motion = keccak256(abi.encode(msg.sig, study));
        bool over = block.timestamp > t.deadline;
        bool passed = over || _vote(motion, me, _able(s));
        emit ResumeVoted(study, me, motion);
        if (!passed) return;
        _ballots[motion].yes = 0;
        t.state = State.Running;
        t.deadline = _deadline(t);
        s.step = t;
        emit StudyResumed(study);
    }

    /// @inheritdoc ICatalog
    function abort(uint64 study, uint16 reason, uint8 culprit) external override exact(3) {
        (Study storage s, uint8 me) = _participant(study);
        Step memory t = s.step;
        if (t.state >= State.Completed) revert BadState(uint8(t.state));
        if (culprit != 0 && !_has(s.active, culprit)) revert UnknownSite();
        if (culprit == me && t.state != State.Proposed && _dispensable(s, t, me)) {
            _remove(s, me);
            emit SiteLeft(study, me, reason, t.position, t.attempt);
            t.attempt++;
            if (t.state == State.Running) t.deadline = _deadline(t);
            s.step = t;
            return;
        }
        if (!_endsAlone(s, t, me, culprit)) {
            bytes32 motion = keccak256(abi.encode(msg.sig, study, reason, culprit));
            bool passed = _vote(motion, me, _others(s, culprit));
            emit AbortVoted(study, me, reason, culprit, motion);
            if (!passed) return;
        }
        s.step.state = State.Aborted;
        emit StudyAborted(study, me, reason, culprit);
    }

    /// @inheritdoc ICatalog
    function supersede(uint64 study, uint64 by, bytes32 reason) external override exact(3) {
        (Study storage s, uint8 me) = _party(study);
        _requireState(s.step.state, State.Completed);
        if (by == study || by > studyCount || reason == 0) revert BadTerms();
        if (s.origin.superseded) revert AlreadyVoted();
        bytes32 motion = keccak256(abi.encode(msg.sig, study, by, reason));
        bool passed = me == s.origin.proposer || _vote(motion, me, s.active & _members);
        emit SupersessionVoted(study, me, by, reason, motion);
        if (!passed) return;
        s.origin.superseded = true;
        emit StudySuperseded(study, by, reason);
    }

    /// @inheritdoc ICatalog
    function attest(uint64 study, bytes32 snapshot, uint16 verdict) external override exact(3) {
        (Study storage s, uint8 me) = _party(study);
        if (s.step.state < State.Completed) revert BadState(uint8(s.step.state));
        if (snapshot == 0) revert BadTerms();
        emit SiteAttested(study, me, snapshot, verdict);
    }

    /// @inheritdoc ICatalog
    function seat(uint8 site)
        external
        view
        override
        returns (bytes32 name, address key, bytes32 sealing, bytes32 peer, IModel model, bool active, uint64 changed)
    {
        Seat storage s = _seats[site];
        return (s.name, s.key, s.sealing, s.peer, s.model, _has(_members, site), s.changed);
    }

    /// @inheritdoc ICatalog
    function offered(uint8 site) external view override returns (address key, bytes32 sealing) {
        return (_seats[site].offeredKey, _seats[site].offeredSealing);
    }

    /// @inheritdoc ICatalog
    function votes(bytes32 motion) external view override returns (uint256) {
        return _counted(_ballots[motion], _members);
    }

    /// @inheritdoc ICatalog
    function terms(uint64 study) external view override returns (Terms memory) {
        Study storage s = _studies[study];
        Step memory t = s.step;
        return Terms(s.hash, s.order, s.schedule, t.maxRounds, t.timeout, t.silence, t.least);
    }

    /// @inheritdoc ICatalog
    function status(uint64 study) external view override returns (Status memory v) {
        Study storage s = _studies[study];
        Step memory t = s.step;
        (v.state, v.position, v.attempt, v.round) = (t.state, t.position, t.attempt, t.round);
        (v.phase, v.index, v.turn, v.deadline, v.done) = (t.phase, t.index, t.turn, t.deadline, t.done);
        (v.active, v.able, v.joined) = (s.active, _able(s), s.joined);
        (v.posted, v.basis) = (s.posted & ~NOBODY, s.basis);
        (v.proposer, v.superseded) = (s.origin.proposer, s.origin.superseded);
        if (t.state == State.Running) (v.kind, v.server) = (_kind(s, t), _server(s, t));
    }

    /// @inheritdoc ICatalog
    function siteOf(address key) public view override returns (uint8) {
        uint8 site = _holder[key];
        return _has(_members, site) ? site : 0;
    }

    // Membership

    function _admit(bytes32 name, address key, bytes32 sealing, bytes32 peer) private {
        uint8 site = ++siteCount;
        IModel model = new Model(site);
        _seats[site] = Seat(name, key, sealing, peer, model, _changes, address(0), 0);
        (_holder[key], _named[name]) = (site, true);
        _members |= _bit(site);
        emit SiteAdmitted(site, name, key, sealing, peer, address(model));
    }

    function _rekey(uint8 site, address key, bytes32 sealing) private {
        Seat storage s = _seats[site];
        delete _holder[s.key];
        _holder[key] = site;
        (s.key, s.sealing, s.changed, s.offeredKey, s.offeredSealing) = (key, sealing, ++_changes, address(0), 0);
        emit KeyChanged(site, key, sealing);
    }

    /// Add a vote; true, and the ballot is emptied, when a strict majority of today's electorate has voted for the
    /// motion. Who has voted already may vote again only if the motion passes with it: the electorate may have shrunk.
    function _vote(bytes32 motion, uint8 me, uint256 electorate) private returns (bool passed) {
        Ballot storage b = _ballots[motion];
        uint256 counted = _counted(b, electorate);
        uint256 yes = counted | _bit(me);
        passed = 2 * _count(yes & electorate) > _count(electorate);
        if (counted == yes && !passed) revert AlreadyVoted();
        b.yes = passed ? 0 : yes;
        b.cast[me] = Vote(_seats[me].changed, uint64(block.number), uint64(block.timestamp));
    }

    /// The votes that count today: of the electorate, not expired, and of a seat that has the key that it had then.
    function _counted(Ballot storage b, uint256 electorate) private view returns (uint256 counted) {
        for (uint256 rest = b.yes & electorate; rest != 0; rest &= rest - 1) {
            uint8 site = _lowest(rest);
            Vote memory v = b.cast[site];
            bool young = v.number + VOTE_BLOCKS >= block.number && v.time + VOTE_TIME >= block.timestamp;
            if (young && v.changed == _seats[site].changed) counted |= _bit(site);
        }
    }

    function _caller() private view returns (uint8 me) {
        if (msg.sender != tx.origin) revert NotExternal();
        me = siteOf(msg.sender);
        if (me == 0) revert NotSite();
    }

    /// As `exact`, for arguments whose length varies.
    function _requireCanonical(bytes memory arguments) private pure {
        if (keccak256(arguments) != keccak256(msg.data[4:])) revert BadCall();
    }

    function _requireActive(uint8 site) private view {
        if (!_has(_members, site)) revert UnknownSite();
    }

    function _requireFree(address key, bytes32 sealing) private view {
        if (key == address(0) || _holder[key] != 0) revert KeyTaken();
        if (key.code.length != 0) revert NotExternal();
        if (sealing == 0) revert BadTerms();
    }

    function _requireNew(bytes32 name, address key, bytes32 sealing) private view {
        _requireFree(key, sealing);
        if (_named[name]) revert NameTaken();
        _requireName(name);
        if (siteCount == MAX_SITES) revert TooManySites();
    }

    /// 1 to 31 of a-z, 0-9 and -, the first no -, then zeros.
    function _requireName(bytes32 name) private pure {
        uint256 n;
        while (n < MAX_NAME && _isNameByte(uint8(name[n]), n)) n++;
        if (n == 0 || name << (8 * n) != 0) revert BadName();
    }

    function _isNameByte(uint8 c, uint256 place) private pure returns (bool) {
        return (c >= 0x61 && c <= 0x7a) || (c >= 0x30 && c <= 0x39) || (c == 0x2d && place != 0);
    }

    // Studies

    function _join(uint64 study, Study storage s, uint8 me, Joining calldata joining) private {
        uint256 joined = s.joined;
        if (_has(joined, me)) revert AlreadyVoted();
        joined |= _bit(me);
        s.joined = joined;
        emit StudyJoined(study, me, joining);
        if (joined == s.active) _start(study, s);
    }

    function _start(uint64 study, Study storage s) private {
        Step memory t = s.step;
        t.state = State.Running;
        t.deadline = _deadline(t);
        _enter(s, t);
        s.step = t;
        s.last = t;
        emit StudyStarted(study);
    }

    /// Take the site's slot in the open step; true when the step is complete with it.
    function _takeSlot(Study storage s, Step memory t, uint8 site, uint8 kind) private returns (bool) {
        if (kind != EACH) {
            uint8 expected = kind == SERVER ? _server(s, t) : kind;
            if (site != expected) revert NotYourTurn(expected);
            return true;
        }
        (uint256 active, uint256 posted) = (s.active, s.posted);
        if (!_has(active, site)) revert NotParticipant();
        if (_has(posted, site)) revert Overwrite();
        posted |= _bit(site);
        bool complete = posted == active | NOBODY;
        s.posted = complete ? NOBODY : posted;
        return complete;
    }

    function _advance(Study storage s, Step memory t, uint8 kind, Post calldata post) private {
        s.last = t;
        if (kind != EACH) (s.before, s.basis) = (s.basis, post.sha);
        if (kind == SERVER) {
            _passTurn(s, t);
            if (t.phase == LOOP) t.done = post.converged;
        }
        t.position++;
        t.attempt = s.origin.attempt;
        t.index++;
        t.deadline = _deadline(t);
        _enter(s, t);
        s.step = t;
        if (t.state == State.Completed) emit StudyCompleted(post.study);
    }

    /// What becomes of a study in which a majority of the others cannot use a site's post at step `back`, which is open
    /// or the last one finished: it ends, or goes back to that step, without the site if it can.
    function _blame(uint64 study, Step memory back, uint8 me, uint8 site, uint16 reason) private {
        Study storage s = _studies[study];
        uint8 kind = _kind(s, back);
        if (back.silence == uint8(Silence.Abort) && kind != SERVER) {
            s.step.state = State.Aborted;
            emit StudyAborted(study, me, reason, site);
            return;
        }
        (uint32 position, uint16 attempt) = (back.position, back.attempt);
        bool excluded = kind == EACH && _dispensable(s, back, site);
        if (position != s.step.position) _goBack(s, back, kind);
        if (excluded) _remove(s, site);
        s.posted = NOBODY;
        _beginAgain(s, back);
        if (excluded) emit SiteExcluded(study, site, position, attempt);
        else emit StepReopened(study, site, position, attempt);
    }

    /// Undo what the last finished step has changed. Its attempts and those of the open step stay on record, so that
    /// both begin above them.
    function _goBack(Study storage s, Step memory last, uint8 kind) private {
        uint16 attempt = s.step.attempt;
        if (attempt > last.attempt) last.attempt = attempt;
        s.origin.attempt = last.attempt + 1;
        if (kind != EACH) s.basis = s.before;
        if (kind == SERVER) _passTurn(s, last);
    }

    function _remove(Study storage s, uint8 site) private {
        uint8 place;
        while (uint8(s.order[place]) != site) place++;
        s.places &= ~_bit(place);
        s.active &= ~_bit(site);
        s.posted = NOBODY;
    }

    function _beginAgain(Study storage s, Step memory t) private {
        t.attempt++;
        t.deadline = _deadline(t);
        s.step = t;
    }

    function _pause(Study storage s) private {
        s.step.state = State.Paused;
        s.step.deadline = uint64(block.timestamp) + PAUSE_TIME;
    }

    /// A caller that takes part in the study, or took part in it to its end.
    function _party(uint64 study) private view returns (Study storage s, uint8 me) {
        me = _caller();
        s = _studies[study];
        if (!_has(s.active, me)) revert NotParticipant();
    }

    /// A caller that takes part with the key that it had when the study was proposed.
    function _participant(uint64 study) private view returns (Study storage s, uint8 me) {
        (s, me) = _party(study);
        _requireKey(s, me);
    }

    function _running(uint64 study) private view returns (Study storage s, Step memory t, uint8 me) {
        (s, me) = _participant(study);
        t = s.step;
        _requireState(t.state, State.Running);
    }

    function _requireKey(Study storage s, uint8 site) private view {
        if (_seats[site].changed > s.origin.changes) revert SeatChanged();
    }

    /// Whether a site can take no further part: revoked, or its key has changed since the study was proposed.
    function _gone(Study storage s, uint8 site) private view returns (bool) {
        return !_has(_members, site) || _seats[site].changed > s.origin.changes;
    }

    /// The participants that can act: who votes in the study today.
    function _able(Study storage s) private view returns (uint256 able) {
        for (uint256 rest = s.active; rest != 0; rest &= rest - 1) {
            uint8 site = _lowest(rest);
            if (!_gone(s, site)) able |= _bit(site);
        }
    }

    function _others(Study storage s, uint8 site) private view returns (uint256) {
        return _able(s) & ~_bit(site);
    }

    /// Whether the study's terms let it go on without a site.
    function _dispensable(Study storage s, Step memory t, uint8 site) private view returns (bool) {
        return t.silence == uint8(Silence.Exclude) && !_has(_kinds(s.schedule), site) && _count(s.active) > t.least;
    }

    /// Whether this caller alone can end the study: by its own leaving, where the study cannot go on without a site
    /// that is absent, and where its terms let no site be excluded.
    function _endsAlone(Study storage s, Step memory t, uint8 me, uint8 culprit) private view returns (bool) {
        if (culprit == me) return true;
        if (culprit == 0) return t.state == State.Proposed || t.silence != uint8(Silence.Exclude);
        return !_dispensable(s, t, culprit) && (_gone(s, culprit) || _silent(s, t, culprit));
    }

    /// Whether the open step waits for a site's post, after the deadline. A server is skipped.
    function _silent(Study storage s, Step memory t, uint8 site) private view returns (bool) {
        if (t.state != State.Running || block.timestamp <= t.deadline) return false;
        uint8 kind = _kind(s, t);
        return kind == EACH ? !_has(s.posted, site) : kind == site;
    }

    /// Digest of the payload that a site has posted in a slot, zero if none.
    function _posted(uint64 study, uint32 position, uint16 attempt, uint8 site) private view returns (bytes32) {
        IModel model = _seats[site].model;
        return address(model) == address(0) ? bytes32(0) : model.shaAt(keccak256(abi.encode(study, position, attempt)));
    }

    /// Walk to the next step: in this phase, in the next round of the loop, in the next phase, or to the end.
    function _enter(Study storage s, Step memory t) private view {
        while (t.index == 32 || s.schedule[t.phase][t.index] == 0) {
            t.index = 0;
            if (t.phase == LOOP && s.schedule[LOOP] != 0 && !t.done && t.round + 1 < t.maxRounds) {
                t.round++;
                return;
            }
            t.phase++;
            if (t.phase == CLOSED) {
                t.state = State.Completed;
                return;
            }
        }
    }

    function _kind(Study storage s, Step memory t) private view returns (uint8) {
        return uint8(s.schedule[t.phase][t.index]);
    }

    /// The site whose turn it is: the first active one from `turn` on, to which it moves `turn`. There is one, since
    /// no study goes on without a site.
    function _server(Study storage s, Step memory t) private view returns (uint8) {
        uint256 places = s.places;
        uint256 ahead = (places >> t.turn) << t.turn;
        t.turn = _lowest(ahead == 0 ? places : ahead);
        return uint8(s.order[t.turn]);
    }

    /// The site after the one that _server has found has the next turn.
    function _passTurn(Study storage s, Step memory t) private view {
        t.turn = uint8((uint256(t.turn) + 1) % s.order.length);
    }

    /// Place of a proposal of this site that is not open any more.
    function _freePlace(uint8 me) private view returns (uint256 place) {
        uint64[MAX_OPEN] storage own = _proposals[me];
        for (; place < MAX_OPEN; place++) {
            Step storage t = _studies[own[place]].step;
            if (t.state != State.Proposed || block.timestamp > t.deadline) return place;
        }
        revert TooManyProposals();
    }

    function _requireTerms(Terms calldata t) private view returns (uint256 parties) {
        if (t.hash == 0 || t.maxRounds == 0 || t.silence > uint8(type(Silence).max)) revert BadTerms();
        if (t.timeout < MIN_TIMEOUT || t.timeout > MAX_TIMEOUT) revert BadTerms();
        parties = _parties(t.order);
        if (t.least == 0 || t.least > t.order.length) revert BadTerms();
        uint256 kinds = _kinds(t.schedule);
        if (kinds == 0 || kinds & ~(parties | _bit(EACH) | _bit(SERVER)) != 0) revert BadSchedule();
    }

    function _parties(bytes calldata order) private view returns (uint256 parties) {
        if (order.length == 0) revert BadOrder();
        uint256 members = _members;
        for (uint256 i; i < order.length; i++) {
            uint8 site = uint8(order[i]);
            if (!_has(members & ~parties, site)) revert BadOrder();
            parties |= _bit(site);
        }
    }

    function _proposed(Terms calldata terms_) private view returns (Step memory t) {
        t.state = State.Proposed;
        t.deadline = uint64(block.timestamp) + PROPOSAL_TIME;
        (t.maxRounds, t.timeout, t.silence, t.least) = (terms_.maxRounds, terms_.timeout, terms_.silence, terms_.least);
    }

    function _deadline(Step memory t) private view returns (uint64) {
        return uint64(block.timestamp) + t.timeout;
    }

    function _requireLate(Step memory t) private view {
        if (block.timestamp <= t.deadline) revert NotYet(t.deadline);
    }

    function _requirePayload(Post calldata post) private pure {
        if (post.sha == 0 || post.cid == 0) revert EmptyPost();
        if (post.codec != 0x55 && post.codec != 0x70) revert BadPayload();
        if (post.size == 0 || post.size > MAX_SIZE) revert BadPayload();
    }

    function _requireState(State state, State wanted) private pure {
        if (state != wanted) revert BadState(uint8(state));
    }

    /// Bitmap of the kinds that a schedule uses.
    function _kinds(bytes32[3] memory schedule) private pure returns (uint256 kinds) {
        for (uint256 phase; phase < CLOSED; phase++) {
            for (bytes32 rest = schedule[phase]; rest != 0; rest <<= 8) {
                if (rest[0] == 0) revert BadSchedule(); // a step after the end of the list
                kinds |= _bit(uint8(rest[0]));
            }
        }
    }

    // Bitmaps of sites

    function _bit(uint8 site) private pure returns (uint256) {
        return 1 << site;
    }

    function _has(uint256 bitmap, uint8 site) private pure returns (bool) {
        return (bitmap >> site) & 1 == 1;
    }

    /// Place of the lowest bit that is set, by halves: the cost does not grow with the number of sites.
    function _lowest(uint256 bitmap) private pure returns (uint8 i) {
        for (uint8 half = 128; half != 0; half >>= 1) {
            if (bitmap & ((1 << half) - 1) == 0) {
                bitmap >>= half;
                i += half;
            }
        }
    }

    function _count(uint256 bitmap) private pure returns (uint256 n) {
        for (; bitmap != 0; bitmap &= bitmap - 1) n++;
    }
}
