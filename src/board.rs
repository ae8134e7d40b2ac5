//! Work that is claimed: the job board, in the layout of TaskFlow.
