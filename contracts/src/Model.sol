// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {ICatalog} from "./interfaces/ICatalog.sol";
import {IModel, Post} from "./interfaces/IModel.sol";

/// @notice Implements IModel, which documents it.
contract Model is IModel {
    /// @inheritdoc IModel
    ICatalog public immutable override catalog;
    /// @inheritdoc IModel
    uint8 public immutable override site;
    /// @inheritdoc IModel
    uint64 public override next = 1; // never zero, as `head`: a first record costs no more than any other
    /// @inheritdoc IModel
    bytes32 public override head;
    /// @inheritdoc IModel
    mapping(bytes32 => bytes32) public override shaAt;

    constructor(uint8 site_) {
        catalog = ICatalog(msg.sender);
        site = site_;
        head = keccak256(abi.encode(msg.sender, block.chainid, site_));
    }

    /// @inheritdoc IModel
    function record(Post calldata post) external override {
        if (msg.data.length != 4 + 32 * 10) revert ICatalog.BadCall();
        (uint8 kind, uint32 round) = catalog.onPost(site, msg.sender, post);
        uint64 seq = next++;
        bytes32 extended = keccak256(abi.encode(head, seq, kind, round, post));
        head = extended;
        shaAt[keccak256(abi.encode(post.study, post.position, post.attempt))] = post.sha;
        emit Recorded(post.study, post.position, seq, kind, round, post, extended);
    }
}
