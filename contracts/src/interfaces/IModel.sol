// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {ICatalog} from "./ICatalog.sol";

/// @notice What a site posts at one position of a study. The payload is elsewhere; its digests are here.
/// @param study Id of the study.
/// @param position Which step of the study, counted from 0 over all phases and rounds.
/// @param attempt The step's attempt: a skip, an exclusion, a leaving and a reopening add one. The posts of earlier
/// attempts stay on record, and a learner may build on them.
/// @param codec Multicodec of the payload's CID: 0x55 raw, 0x70 dag-pb.
/// @param size Size of the payload in bytes, 1 to 134,217,728.
/// @param converged Claim of a server post in the loop: this was the last round.
/// @param cid SHA-256 digest inside the payload's CID; never zero.
/// @param sha SHA-256 of the payload; never zero.
/// @param basis `sha` of the last server (or only) post that the payload builds on; the study's hash before the first.
/// @param verdict Digest of the release gate's decision.
struct Post {
    uint64 study;
    uint32 position;
    uint16 attempt;
    uint8 codec;
    uint40 size;
    bool converged;
    bytes32 cid;
    bytes32 sha;
    bytes32 basis;
    bytes32 verdict;
}

/// @title Append-only records of one site
/// @notice Deployed by the Catalog, written by the site's current key alone, never rewritten by anyone.
/// Each record extends a hash chain, so that a reader who holds `head` can prove any list of logs complete.
interface IModel {
    /// @notice The site has recorded a post.
    /// @param seq The site's own count of records, from 1.
    /// @param kind Kind of the step: 0xff each, 0xfe server, else the id of the one site.
    /// @param round Round of the loop, from 0.
    /// @param head The hash chain's head after this record.
    event Recorded(
        uint64 indexed study,
        uint32 indexed position,
        uint64 indexed seq,
        uint8 kind,
        uint32 round,
        Post post,
        bytes32 head
    );

    /// @notice Append a post. The Catalog refuses a stranger, a step out of order and a second post in a slot.
    /// @dev head' = keccak256(abi.encode(head, seq, kind, round, post)). Reverts with the errors of ICatalog.onPost.
    function record(Post calldata post) external;

    /// @notice The Catalog that deployed this Model.
    function catalog() external view returns (ICatalog);

    /// @notice Id of the site whose records these are.
    function site() external view returns (uint8);

    /// @notice Sequence number of the next record; the first is 1.
    function next() external view returns (uint64);

    /// @notice Head of the hash chain; without records keccak256(abi.encode(catalog, chain id, site)).
    function head() external view returns (bytes32);

    /// @notice `sha` of the record in a slot, zero if there is none.
    /// @param slot keccak256(abi.encode(study, position, attempt))
    function shaAt(bytes32 slot) external view returns (bytes32);
}
