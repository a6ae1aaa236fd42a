//! One suite of claims that every store keeps, and what holds for a single kind of store besides.
//!
//! A store is added by giving it a [`bed::Bed`] and one line of `conformance!` below.
//!
//! | file | what it holds |
//! |---|---|
//! | `bed` | how each store is made fresh, reopened, and found again after a crash |
//! | `rows` | snapshots and rows to store, and how to read them back |
//! | `suite` | the claims about rows: each field, their order, names and documents by their bytes |
//! | `listing` | the claims about listings |
//! | `many` | listings of many names |
//! | `checkpointing` | the claims about what commits put off |
//! | `equivalence` | random histories, stored one at a time, merged and in batches of two names |
//! | `sqlite` | what holds for the embedded store alone |

mod bed;
mod checkpointing;
mod equivalence;
mod listing;
mod many;
mod rows;
mod sqlite;
mod suite;
#[path = "../support/mod.rs"]
mod support;

/// Runs the whole suite against one kind of store.
macro_rules! conformance {
    ($store:ident, $bed:ty) => {
        mod $store {
            conformance! {
                $bed;
                suite::a_created_resource_is_found_by_its_name
                suite::an_unknown_name_or_selector_is_nothing
                suite::every_field_of_the_head_row_comes_back
                suite::a_head_row_replaces_the_earlier_one_whole
                suite::every_field_of_a_waiting_ticket_comes_back
                suite::leases_beside_the_one_in_the_head_row_come_back_and_go
                suite::options_change_and_go_with_their_resource
                suite::a_waiting_ticket_is_replaced_and_removed
                suite::every_field_of_an_ended_ticket_comes_back
                suite::an_ended_ticket_overwrites_the_one_64_before_it
                suite::a_document_keeps_the_id_of_its_first_write
                suite::a_document_written_again_after_its_deletion_has_its_new_id
                suite::what_is_removed_goes_before_what_is_created_and_that_before_the_rest
                suite::a_removed_resource_leaves_nothing_behind
                suite::past_leases_are_added_to_those_of_their_name
                suite::a_resource_that_was_never_stored_can_be_removed
                suite::the_floor_grows_and_never_falls
                suite::an_empty_batch_and_an_empty_snapshot_change_nothing
                suite::a_batch_of_thousands_is_stored_whole
                suite::ten_thousand_waiting_tickets_come_back
                suite::a_rejected_batch_stores_nothing
                suite::rows_of_a_resource_that_does_not_exist_are_rejected
                suite::names_are_compared_byte_for_byte
                suite::selectors_are_compared_byte_for_byte
                suite::documents_come_back_byte_for_byte
                suite::a_document_of_two_mebibytes_comes_back
                suite::documents_are_listed_with_their_sizes_in_the_order_of_their_bytes
                suite::everything_outlives_closing_and_opening
                suite::everything_outlives_a_crash
                suite::everything_outlives_being_opened_again
                listing::a_listing_shows_what_is_stored
                listing::names_are_listed_in_byte_order_and_page_by_page
                listing::a_prefix_is_compared_byte_for_byte
                listing::a_name_before_the_prefix_skips_nothing
                listing::only_held_or_only_free_resources_are_listed
                listing::most_waiting_tickets_come_first_and_then_names
                listing::longest_held_comes_first_and_then_names
                listing::other_orders_heed_prefix_and_limit_and_ignore_after
                checkpointing::settling_changes_nothing_that_is_loaded
                checkpointing::a_load_beside_settling_sees_each_lock_whole
                checkpointing::a_crash_between_settling_and_the_next_loses_nothing
                checkpointing::what_a_removed_resource_had_is_nothing_to_its_successor
                checkpointing::a_listing_shows_what_was_settled_last
                equivalence::one_at_a_time_merged_and_batched_store_the_same
            }
        }
    };
    ($bed:ty; $($room:ident::$claim:ident)*) => {
        $(
            #[test]
            fn $claim() {
                if !<$bed as $crate::bed::Bed>::is_skipped() {
                    $crate::bed::run($crate::$room::$claim::<$bed>);
                }
            }
        )*
    };
}

conformance!(memory_store, crate::bed::MemoryBed);
conformance!(sqlite_store, crate::bed::SqliteBed);
conformance!(mysql_store, crate::bed::MysqlBed);
