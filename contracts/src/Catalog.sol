// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {ICatalog} from "./interfaces/ICatalog.sol";
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
        uint64 deadline;
        uint32 timeout;
        uint16 maxRounds;
        uint8 silence;
    }

    struct Study {
        Step step;
        uint256 active;
        uint256 places; // of the active sites in the order: a server is found without reading the order
        uint256 joined;
        uint256 posted; // bit 0 is always set: a slot that is never zero costs no more at a round's first post
        bytes32 basis;
        bytes32 hash;
        bytes32[3] schedule;
        bytes order;
    }

    uint8 private constant EACH = 0xff;
    uint8 private constant SERVER = 0xfe;
    uint8 private constant MAX_SITES = 253;
    uint8 private constant LOOP = 1;
    uint8 private constant CLOSED = 3;
    uint256 private constant NOBODY = 1;

    /// @inheritdoc ICatalog
    uint8 public override siteCount;
    /// @inheritdoc ICatalog
    uint64 public override studyCount;

    uint256 private _members; // bitmap of the active sites
    mapping(uint8 site => Seat) private _seats;
    mapping(address key => uint8) private _holder; // of the sites' current keys, active or not
    mapping(bytes32 name => bool) private _named;
    mapping(uint64 study => Study) private _studies;
    mapping(bytes32 motion => uint256) private _ballots; // bitmap of who voted for it

    /// Found the network. The lists are parallel.
    constructor(bytes32[] memory names, address[] memory keys, bytes32[] memory sealing, bytes32[] memory peers) {
        uint256 n = names.length;
        if (keys.length != n || sealing.length != n || peers.length != n) revert BadTerms();
        for (uint256 i; i < n; i++) {
            _requireNew(names[i], keys[i]);
            _admit(names[i], keys[i], sealing[i], peers[i]);
        }
    }

    /// @inheritdoc ICatalog
    function admit(bytes32 name, address key, bytes32 sealing, bytes32 peer) external override {
        uint8 me = _caller();
        _requireNew(name, key);
        bool passed = _vote(keccak256(abi.encode(msg.sig, name, key, sealing, peer)), me, _members);
        emit AdmissionVoted(me, name, key, sealing, peer);
        if (passed) _admit(name, key, sealing, peer);
    }

    /// @inheritdoc ICatalog
    function revoke(uint8 site) external override {
        uint8 me = _caller();
        _requireActive(site);
        bool passed = _vote(keccak256(abi.encode(msg.sig, site)), me, _members);
        emit RevocationVoted(me, site);
        if (!passed) return;
        _members &= ~_bit(site);
        emit SiteRevoked(site);
    }

    /// @inheritdoc ICatalog
    function recover(uint8 site, address key, bytes32 sealing) external override {
        uint8 me = _caller();
        _requireActive(site);
        _requireFree(key);
        bool passed = _vote(keccak256(abi.encode(msg.sig, site, key, sealing)), me, _members);
        emit RecoveryVoted(me, site, key, sealing);
        if (passed) _rekey(site, key, sealing);
    }

    /// @inheritdoc ICatalog
    function offer(address key, bytes32 sealing) external override {
        uint8 me = _caller();
        _requireFree(key);
        (_seats[me].offeredKey, _seats[me].offeredSealing) = (key, sealing);
        emit KeyOffered(me, key, sealing);
    }

    /// @inheritdoc ICatalog
    function accept(uint8 site) external override {
        _requireActive(site);
        if (_seats[site].offeredKey != msg.sender) revert NotOffered();
        _requireFree(msg.sender);
        _rekey(site, msg.sender, _seats[site].offeredSealing);
    }

    /// @inheritdoc ICatalog
    function propose(
        bytes32 hash,
        bytes calldata order,
        bytes32[3] calldata schedule,
        uint16 maxRounds,
        uint32 timeout,
        uint8 silence,
        bytes32 snapshot
    ) external override returns (uint64 study) {
        uint8 me = _caller();
        if (hash == 0 || maxRounds == 0 || timeout == 0 || silence > uint8(type(Silence).max)) revert BadTerms();
        uint256 parties = _parties(order);
        _requireSchedule(schedule, parties);
        if (!_has(parties, me)) revert NotParticipant();
        study = ++studyCount;
        Study storage s = _studies[study];
        (s.hash, s.basis, s.order, s.schedule) = (hash, hash, order, schedule);
        (s.active, s.places, s.posted) = (parties, (1 << order.length) - 1, NOBODY);
        s.step = _proposed(maxRounds, timeout, silence);
        emit StudyProposed(study, me, hash, order, schedule, maxRounds, timeout, silence);
        _join(study, s, me, snapshot);
    }

    /// @inheritdoc ICatalog
    function join(uint64 study, bytes32 hash, bytes32 snapshot) external override {
        (Study storage s, uint8 me) = _participant(study);
        _requireState(s.step.state, State.Proposed);
        if (hash != s.hash) revert HashMismatch();
        _join(study, s, me, snapshot);
    }

    /// @inheritdoc ICatalog
    function onPost(uint8 site, address caller, Post calldata post)
        external
        override
        returns (uint8 kind, uint32 round)
    {
        if (msg.sender != address(_seats[site].model)) revert NotModel();
        if (siteOf(caller) != site) revert NotOwner();
        if (post.sha == 0) revert EmptyPost();
        Study storage s = _studies[post.study];
        Step memory t = s.step;
        _requireState(t.state, State.Running);
        if (post.position != t.position || post.attempt != t.attempt) revert WrongStep(t.position, t.attempt);
        if (post.basis != s.basis) revert BasisMismatch(s.basis);
        (kind, round) = (_kind(s, t), t.round);
        if (_takeSlot(s, t, site, kind)) _advance(s, t, kind, post);
    }

    /// @inheritdoc ICatalog
    function skip(uint64 study) external override {
        (Study storage s, Step memory t, uint8 me) = _running(study);
        if (_kind(s, t) != SERVER) revert NotAServerStep();
        _requireLate(t);
        emit ServerSkipped(study, me, t.position, t.attempt, _server(s, t));
        _passTurn(s, t);
        _beginAgain(s, t);
    }

    /// @inheritdoc ICatalog
    function exclude(uint64 study, uint8 site) external override {
        (Study storage s, Step memory t, uint8 me) = _running(study);
        if (t.silence != uint8(Silence.Exclude)) revert NotAllowed();
        if (_kind(s, t) != EACH) revert NotAnEachStep();
        _requireLate(t);
        if (site == me || _has(s.posted, site) || !_has(s.active, site)) revert NotSilent();
        if (_has(_kinds(s.schedule), site)) revert SiteNeeded(site);
        bool passed = _vote(keccak256(abi.encode(msg.sig, study, t.position, t.attempt, site)), me, s.active);
        emit ExclusionVoted(study, me, t.position, t.attempt, site);
        if (!passed) return;
        _remove(s, site);
        emit SiteExcluded(study, site, t.position, t.attempt);
        _beginAgain(s, t);
    }

    /// @inheritdoc ICatalog
    function dispute(uint64 study, uint32 position, bytes32 posted, bytes32 recomputed) external override {
        (Study storage s, uint8 me) = _participant(study);
        Step memory t = s.step;
        if (t.state != State.Running && t.state != State.Completed) revert BadState(uint8(t.state));
        if (position >= t.position) revert WrongStep(t.position, t.attempt);
        s.step.state = State.Paused;
        emit Disputed(study, me, position, posted, recomputed);
    }

    /// @inheritdoc ICatalog
    function pause(uint64 study, uint16 reason) external override {
        (Study storage s,, uint8 me) = _running(study);
        s.step.state = State.Paused;
        emit StudyPaused(study, me, reason);
    }

    /// @inheritdoc ICatalog
    function resume(uint64 study) external override {
        (Study storage s, uint8 me) = _participant(study);
        Step memory t = s.step;
        _requireState(t.state, State.Paused);
        bool passed = _vote(keccak256(abi.encode(msg.sig, study)), me, s.active);
        emit ResumeVoted(study, me);
        if (!passed) return;
        t.state = t.phase == CLOSED ? State.Completed : State.Running;
        t.deadline = _deadline(t);
        s.step = t;
        emit StudyResumed(study);
    }

    /// @inheritdoc ICatalog
    function abort(uint64 study, uint16 reason) external override {
        (Study storage s, uint8 me) = _participant(study);
        if (s.step.state >= State.Completed || s.step.phase == CLOSED) revert BadState(uint8(s.step.state));
        s.step.state = State.Aborted;
        emit StudyAborted(study, me, reason);
    }

    /// @inheritdoc ICatalog
    function seat(uint8 site)
        external
        view
        override
        returns (bytes32 name, address key, bytes32 sealing, bytes32 peer, IModel model, bool active)
    {
        Seat storage s = _seats[site];
        return (s.name, s.key, s.sealing, s.peer, s.model, _has(_members, site));
    }

    /// @inheritdoc ICatalog
    function offered(uint8 site) external view override returns (address key, bytes32 sealing) {
        return (_seats[site].offeredKey, _seats[site].offeredSealing);
    }

    /// @inheritdoc ICatalog
    function terms(uint64 study)
        external
        view
        override
        returns (
            bytes32 hash,
            bytes memory order,
            bytes32[3] memory schedule,
            uint16 maxRounds,
            uint32 timeout,
            uint8 silence
        )
    {
        Study storage s = _studies[study];
        return (s.hash, s.order, s.schedule, s.step.maxRounds, s.step.timeout, s.step.silence);
    }

    /// @inheritdoc ICatalog
    function status(uint64 study) external view override returns (Status memory v) {
        Study storage s = _studies[study];
        Step memory t = s.step;
        (v.state, v.position, v.attempt, v.round) = (t.state, t.position, t.attempt, t.round);
        (v.phase, v.index, v.turn, v.deadline, v.done) = (t.phase, t.index, t.turn, t.deadline, t.done);
        (v.active, v.joined, v.posted, v.basis) = (s.active, s.joined, s.posted & ~NOBODY, s.basis);
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
        _seats[site] = Seat(name, key, sealing, peer, model, address(0), 0);
        (_holder[key], _named[name]) = (site, true);
        _members |= _bit(site);
        emit SiteAdmitted(site, name, key, sealing, peer, address(model));
    }

    function _rekey(uint8 site, address key, bytes32 sealing) private {
        Seat storage s = _seats[site];
        delete _holder[s.key];
        _holder[key] = site;
        (s.key, s.sealing, s.offeredKey, s.offeredSealing) = (key, sealing, address(0), 0);
        emit KeyChanged(site, key, sealing);
    }

    /// Add a vote; true, and the ballot is emptied, when a strict majority of the electorate has voted for the motion.
    function _vote(bytes32 motion, uint8 me, uint256 electorate) private returns (bool passed) {
        uint256 ballot = _ballots[motion];
        if (_has(ballot, me)) revert AlreadyVoted();
        ballot |= _bit(me);
        passed = 2 * _count(ballot & electorate) > _count(electorate);
        _ballots[motion] = passed ? 0 : ballot;
    }

    function _caller() private view returns (uint8 me) {
        me = siteOf(msg.sender);
        if (me == 0) revert NotSite();
    }

    function _requireActive(uint8 site) private view {
        if (!_has(_members, site)) revert UnknownSite();
    }

    function _requireFree(address key) private view {
        if (key == address(0) || _holder[key] != 0) revert KeyTaken();
    }

    function _requireNew(bytes32 name, address key) private view {
        _requireFree(key);
        if (_named[name]) revert NameTaken();
        if (siteCount == MAX_SITES) revert TooManySites();
    }

    // Studies

    function _join(uint64 study, Study storage s, uint8 me, bytes32 snapshot) private {
        uint256 joined = s.joined;
        if (_has(joined, me)) revert AlreadyVoted();
        joined |= _bit(me);
        s.joined = joined;
        emit StudyJoined(study, me, snapshot);
        if (joined == s.active) _start(study, s);
    }

    function _start(uint64 study, Study storage s) private {
        Step memory t = s.step;
        t.state = State.Running;
        t.deadline = _deadline(t);
        _enter(s, t);
        s.step = t;
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
        if (kind != EACH) s.basis = post.sha;
        if (kind == SERVER) {
            _passTurn(s, t);
            if (t.phase == LOOP) t.done = post.converged;
        }
        t.position++;
        t.attempt = 0;
        t.index++;
        t.deadline = _deadline(t);
        _enter(s, t);
        s.step = t;
        if (t.state == State.Completed) emit StudyCompleted(post.study);
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

    function _participant(uint64 study) private view returns (Study storage s, uint8 me) {
        me = _caller();
        s = _studies[study];
        if (!_has(s.active, me)) revert NotParticipant();
    }

    function _running(uint64 study) private view returns (Study storage s, Step memory t, uint8 me) {
        (s, me) = _participant(study);
        t = s.step;
        _requireState(t.state, State.Running);
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
    /// nobody can vote to exclude itself.
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

    function _parties(bytes calldata order) private view returns (uint256 parties) {
        if (order.length == 0) revert BadOrder();
        uint256 members = _members;
        for (uint256 i; i < order.length; i++) {
            uint8 site = uint8(order[i]);
            if (!_has(members & ~parties, site)) revert BadOrder();
            parties |= _bit(site);
        }
    }

    function _deadline(Step memory t) private view returns (uint64) {
        return uint64(block.timestamp) + t.timeout;
    }

    function _requireLate(Step memory t) private view {
        if (block.timestamp <= t.deadline) revert NotYet(t.deadline);
    }

    function _proposed(uint16 maxRounds, uint32 timeout, uint8 silence) private pure returns (Step memory t) {
        t.state = State.Proposed;
        (t.maxRounds, t.timeout, t.silence) = (maxRounds, timeout, silence);
    }

    function _requireState(State state, State wanted) private pure {
        if (state != wanted) revert BadState(uint8(state));
    }

    function _requireSchedule(bytes32[3] memory schedule, uint256 parties) private pure {
        uint256 kinds = _kinds(schedule);
        if (kinds == 0 || kinds & ~(parties | _bit(EACH) | _bit(SERVER)) != 0) revert BadSchedule();
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
