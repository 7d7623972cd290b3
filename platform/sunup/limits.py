# Longer than 300 lines because every bound of the system is here.
"""Every bound in one place, with its unit and the reason for its value. Full means refuse now, never wait for ever."""

from typing import Final

# --- HTTP -----------------------------------------------------------------------------------------------------------
HEAD_BYTES_MAX: Final = 32 * 1024  # bytes; four times what browsers and proxies send; beyond it 431
PASSED_BYTES_MAX: Final = 64 * 1024  # bytes the door may have read of a connection it passes on; one link message
HEAD_SECONDS_MAX: Final = 10.0  # s from first byte to end of head; slow-loris bound (408)
BODY_SECONDS_MAX: Final = 30.0  # s from end of head to end of body (408)
IDLE_SECONDS_MAX: Final = 75.0  # s a kept-alive connection may be silent before it is closed (nginx's default)
RECORDS_MAX: Final = 10_000  # records in one call; a bigger job belongs in a batch system
WRITE_SECONDS_MAX: Final = 30.0  # s a client may take none of an answer's bytes before it is given up
LINGER_SECONDS_MAX: Final = 1.0  # s a refused client has to read the refusal before the connection is closed on it
UNFINISHED_BYTES_MAX: Final = 128 * 1024 * 1024  # bytes of requests partly read, in one worker; beyond it 503
PIPELINED_MAX: Final = 16  # requests of one connection waiting behind the one in progress before reading pauses
GZIP_REPLY_BYTES_MIN: Final = 16 * 1024  # bytes; smaller replies are not compressed: they fit in a few packets

KEYS_BYTES_MAX: Final = 96 * 1024  # bytes of a key file, some 500 keys; as digests they fit one link message
ACCESS_LOG_RATE_DEFAULT: Final = 0.01  # of calls that did not fail here: platform up --access-log
ACCESS_FLUSH_SECONDS: Final = 1.0  # s between writes of the access log; a worker that is killed takes so much with it
ACCESS_LINES_MAX: Final = 1000  # lines of the access log between two writes of a worker; more are counted, not written
SPANS_FLUSH_SECONDS_MAX: Final = 2.0  # s a worker that ends waits for its collector to take the last spans

KEYS_LOOK_SECONDS: Final = 0.5  # s between looks at whether the key file changed

# --- Functions (defaults of function.toml) --------------------------------------------------------------------------
BODY_BYTES_DEFAULT: Final = 1024 * 1024  # bytes; [limits] body_max
TIMEOUT_SECONDS_DEFAULT: Final = 2.0  # s; [limits] timeout: a caller that waits longer has usually gone
QUEUE_DEFAULT: Final = 256  # calls; [scale] queue_max
IDLE_TO_ZERO_SECONDS_DEFAULT: Final = 30.0  # s; [scale] idle
IDLE_AUTO_SECONDS_MIN: Final = 0.5  # s; idle = "auto" keeps a worker at least so long: two looks of the scaler
IDLE_AUTO_SECONDS_MAX: Final = 600.0  # s; idle = "auto" keeps a worker at most so long: what others keep every worker
SLOW_START_SECONDS: Final = 0.1  # s; a cold start a caller notices: before a timer's call a worker is there early
SILENCES_KEPT_SECONDS: Final = 60.0  # s between writings of what idle = "auto" learned; a crash forgets so much
WARM_SECONDS_DEFAULT: Final = 600.0  # s; [scale] warm, `for`: workers that wait for a rush that starts on the minute
REST_SECONDS_MAX: Final = 5.0  # s an idle function is not looked at; a call to it ends that at the next tick
WARM_CHECK_SECONDS: Final = 60.0  # s a set time may be slept towards at once: the wall clock may be set meanwhile
WARM_LEAD_SECONDS: Final = 5.0  # s a worker of [scale] warm is born before its time: clocks differ, births take a while
FEATURE_DEADLINE_MS_DEFAULT: Final = 20.0  # ms; [features] deadline_ms

# --- Local engine ---------------------------------------------------------------------------------------------------
FDS_PER_MESSAGE_MAX: Final = 253  # descriptors; SCM_MAX_FD of the Linux kernel
DOOR_BYTES_MAX: Final = 64 * 1024 * 1024  # bytes of requests the door holds, all functions together; beyond it 503
DOOR_SPARE_DESCRIPTORS: Final = 512  # descriptors the door keeps for workers' births when clients have taken the rest
CONNECTIONS_MAX: Final = 16_384  # connections one worker may hold; size of its state array (one byte each)
SPARE_DESCRIPTORS: Final = 1024  # descriptors a worker may have open beside connections: stores, brokers, logs
MESSAGE_BYTES_MAX: Final = 160 * 1024  # bytes in one link message; below the default SO_SNDBUF of 208 KiB
BIRTH_SECONDS_MAX: Final = 30.0  # s from fork to ready before a worker is given up (a large model loads in seconds)
PROOF_SECONDS_MAX: Final = 60.0  # s for the first, proving, start of a revision
PROVERS_MAX: Final = 4  # processes that prove bundles of a deploy of many, never more than cores; each holds a model
DEPLOY_TOGETHER: Final = 64  # bundles of a deploy of many that are recorded at once; a kill has the rest done again
DEPLOY_ASKED: Final = 256  # bundles the command line asks the engine for at once; one answer line holds a MiB
TRIM_SECONDS: Final = 1.0  # s after its birth a worker gives free memory back: half a millisecond no first call waits
DRAIN_SECONDS_MAX: Final = 10.0  # s a worker may take to finish what it has when it is told to stop
ADOPT_SECONDS_MAX: Final = 2.0  # s a living process may take to answer a new supervisor before it is replaced
SUPERVISOR_SECONDS_MAX: Final = 10.0  # s the door holds calls for a supervisor the last one said would follow it
RETIRE_SECONDS_MAX: Final = 2.0  # s a door that is being replaced may take to stop, or a nursery to end
BIRTHS_AT_ONCE: Final = 8  # workers of one function being born; more would hold up other functions' first ones
RESTART_BACKOFF_SECONDS_MAX: Final = 5.0  # s between restarts of a process that keeps dying at start
ADMIN_LINE_BYTES_MAX: Final = 4 * 1024 * 1024  # bytes in one line of the admin socket
LOG_BYTES_MAX: Final = 16 * 1024 * 1024  # bytes of one log file before it is rotated to .1
REVISIONS_KEPT: Final = 20  # revisions of a function remembered for rollback
UNUSED_SECONDS_MAX: Final = 3600.0  # s a bundle nothing refers to is kept after it was asked for; deploys take less
COLLECTED_MAX: Final = 100  # bundles removed in one pass, the next follows; deleting large ones keeps a disk busy
COLLECT_DELAY_SECONDS: Final = 1.0  # s from a deploy to the look for unused bundles; many deploys share one
KEPT_BYTES_MAX: Final = 32 * 1024**2  # bytes of models the nursery keeps open; each MiB makes every fork 0.04 ms longer
KEPT_MODEL_BYTES_MAX: Final = 2 * 1024**2  # bytes of a model file to keep; as a session it is about five times that
ARRANGED_MODEL_BYTES_MIN: Final = 2 * 1024**2  # bytes of a model file laid out for the machine; smaller ones are kept
ARRANGED_BYTES_MAX: Final = 8 * 1024**3  # bytes of disk for all that is laid out; what was made longest ago goes first
KEPT_LOAD_SECONDS_MAX: Final = 0.05  # s a model to keep may have taken to load: no birth begins meanwhile
QUIET_SECONDS: Final = 0.1  # s without a birth before the nursery opens models to keep: the last one's call is answered
SOCKET_PATH_BYTES_MAX: Final = 100  # bytes; sun_path holds 108 with its terminator

# --- Ranking --------------------------------------------------------------------------------------------------------
CANDIDATES_MAX: Final = 500  # items one record may have ranked; a longer list needs a retrieval before it
RANK_ROWS_MAX: Final = 50_000  # items one call may have ranked, over all its records; about a second and 40 MB
RETRIEVAL_ROWS_MAX: Final = 64  # records in one run of a retrieval: each takes a score per item of the catalogue

# --- Batching -------------------------------------------------------------------------------------------------------
INLINE_SECONDS_MAX: Final = 0.001  # s; a model run cheaper than this is faster on the event loop than through a thread
BATCH_ROWS_MAX: Final = 1024  # rows in one model run

# --- Images ---------------------------------------------------------------------------------------------------------
IMAGE_PIXELS_DEFAULT: Final = 40_000_000  # pixels; [image] pixels_max; decoded, such a PNG takes 160 MB for a moment
IMAGE_SIDE_MAX: Final = 20_000  # pixels; wider or higher pictures are panoramas, scans or attacks
IMAGE_SIZE_MAX: Final = 2048  # pixels; a side of [image] size
IMAGE_SCANS_MAX: Final = 40  # scans of a progressive JPEG, each a pass over all its pixels; encoders make about ten
IMAGE_CHUNKS_MAX: Final = 100_000  # chunks of a PNG or WebP; 8 KiB each is usual, so this is beyond any picture
IMAGE_THREADS_MAX: Final = 4  # threads that decode in one worker, never more than it has cores; each holds a picture
IMAGES_MAX: Final = 256  # images of one call, and images waiting to be decoded; more is 413, or 503
IMAGES_BYTES_MAX: Final = 256 * 1024**2  # bytes of decoded images the same may take; fewer large ones than small
IMAGE_RUN_ROWS_MAX: Final = 64  # images in one model run; a network holds a hundred times its input meanwhile
IMAGE_STREAM_RECORDS_MAX: Final = 8  # images of one batch of a stream; the dearest take 0.7 s each to decode
IMAGE_PROOF_BYTES_MAX: Final = 64 * 1024**2  # bytes of images a parity proof compares
IMAGE_PROOF_ROWS_MAX: Final = 256  # images a parity proof compares; a large network takes 30 ms for each
IMAGE_PROOF_RUN_ROWS: Final = 64  # images in one run of a proof, which bounds its memory

# --- Feature stores -------------------------------------------------------------------------------------------------
STORE_CONNECT_SECONDS_MAX: Final = 0.8  # s to connect to an online store; a lost packet costs an attempt so long
STORE_INFLIGHT_MAX: Final = 4096  # reads waiting on one store connection
STORE_RETRY_SECONDS: Final = 0.2  # s at most between attempts to reconnect to a store that is down; half at least
STORE_SPREAD_SECONDS: Final = 0.02  # s within which workers that lost a store at one instant come back to it
STORE_LOG_SECONDS: Final = 5.0  # s between log lines about lookups that go without their store
STORE_STALL_SECONDS_MAX: Final = 1.0  # s past its deadline a reply may come before the connection is dropped
CIRCUIT_FAILURES_MAX: Final = 3  # failed reads one after the other before calls go without their store at once
CIRCUIT_SECONDS_MIN: Final = 0.05  # s of failing reads before that; reads refused at once are soon many
CIRCUIT_TRIAL_SECONDS: Final = 0.1  # s between trials of a store that did not answer, give or take a quarter
DISCOVERY_SECONDS_MAX: Final = 0.25  # s a Redis Sentinel or cluster node has to say who serves; then another is asked
SENTINEL_LOOK_SECONDS: Final = 0.5  # s between looks at who the master is; a paused one breaks no connection
CLUSTER_LOOK_SECONDS: Final = 0.2  # s at least between reads of a cluster's slots, which any doubt asks for
CLUSTER_REDIRECTS_MAX: Final = 4  # redirections one read of a Redis cluster follows: slots move one at a time
VALUES_KNOWN_MAX: Final = 1024  # decoded values of one type a function keeps; about 150 kB, and most counts are small
VALUE_KNOWN_BYTES_MAX: Final = 64  # bytes of a stored value to keep decoded; longer texts are no categories
LOOKUP_ROWS_PER_DEADLINE: Final = 64  # rows; [features] deadline_ms is for so many, a bigger call gets more of it
SQLITE_KEYS_PER_STATEMENT: Final = 64  # keys in one SELECT of a call with many rows; SQLite's oldest limit is 999
SQLITE_MMAP_BYTES: Final = 256 * 1024 * 1024  # bytes of an online store mapped; pages stay in the kernel's cache
SQLITE_CHECK_SECONDS: Final = 1.0  # s between looks at whether an online store's file was replaced
POSTGRES_CONNECTIONS: Final = 2  # of one worker; the second is for reads beside a large one, more gain nothing
POSTGRES_INFLIGHT_MAX: Final = 256  # reads waiting on one PostgreSQL connection: what it answers in 10 ms or so
POSTGRES_STATEMENT_SECONDS_MIN: Final = 0.1  # s a server may work on one read at least, however short the deadline
FEATURE_CACHE_KEYS_MAX: Final = 50_000  # entity keys a worker remembers for [features] cache; the longest unused go
FEATURE_CACHE_BYTES_MAX: Final = 32 * 1024**2  # bytes of them in one worker, as much again as an idle worker holds

# --- Prediction cache -----------------------------------------------------------------------------------------------
ANSWERS_MAX: Final = 50_000  # rows whose answers a worker remembers for [cache]; the longest unused go
ANSWERS_BYTES_MAX: Final = 32 * 1024**2  # bytes of them in one worker, their keys included
ANSWERS_PER_CALL_MAX: Final = 1024  # rows of one call that are looked for; some us each, on the event loop
ANSWER_KEY_BYTES_MAX: Final = 512  # bytes of a row kept as they are; of a longer one (text, a picture) its BLAKE2b

# --- Training and serving -------------------------------------------------------------------------------------------
TRAINING_ROWS_MAX: Final = 100_000  # rows of a training sample that are profiled; more would not move a decile
TRAINING_ROWS_MIN: Final = 50  # rows a profile needs, and a category to be named in it; fewer could be one person's
TRAINING_CATEGORIES_MAX: Final = 20  # values of a text column named in a profile; the others are counted together
TRAINING_CATEGORY_CHARS_MAX: Final = 64  # characters of such a value; longer text is no category
SERVED_READ_ROWS: Final = 16_384  # rows of the served-feature log in memory at a time; 4 MB of 30 columns
SERVED_SAMPLE_ROWS: Final = 10_000  # values per feature kept for its quantiles; the median is within 1 % of ranks
SKEW_PLOTTED_MAX: Final = 12  # features a plot shows as histograms, the most moved; its bars show SKEW_BARS_MAX
SKEW_BARS_MAX: Final = 40  # bars a page is wide enough for

# --- The served-feature log ------------------------------------------------------------------------------------------
SERVED_ROTATE_SECONDS_DEFAULT: Final = 3600.0  # s; [features] log rotate: rows are in a file so long after their call
SERVED_SIZE_BYTES_DEFAULT: Final = 64 * 1024**2  # bytes; [features] log size: rows of one file, as they are spooled
SERVED_SIZE_BYTES_MIN: Final = 64 * 1024  # bytes; [features] log size: smaller files are mostly their own description
SERVED_SIZE_BYTES_MAX: Final = 1024**3  # bytes; [features] log size: four times as much may wait on disk
SERVED_SPOOL_SIZES: Final = 4  # times `size` a function's spool may hold; beyond it rows are dropped and counted
SERVED_FLUSH_SECONDS: Final = 0.1  # s between writes to the spool; a worker that is killed takes so much with it
SERVED_FLUSH_BYTES: Final = 64 * 1024  # bytes of rows that are written at once, without waiting for that time
SERVED_PENDING_BYTES_MAX: Final = 8 * 1024**2  # bytes of rows in a worker that a slow disk has not taken; then dropped
SERVED_FRAME_BYTES_MAX: Final = 64 * 1024**2  # bytes of one write to the spool: a call of 50,000 candidates has 15 MB
SERVED_SEGMENT_BYTES: Final = 4 * 1024**2  # bytes of one file of the spool, or a quarter of `size` if that is less
SERVED_SEGMENT_SECONDS: Final = 30.0  # s one file of the spool is written to, or `rotate` if that is less
SERVED_LOOK_SECONDS: Final = 1.0  # s between looks at the spool: of the recorder, and of a worker at how full it is
SERVED_REST_SECONDS: Final = 10.0  # s without a file after which the recorder makes way for one without pyarrow: 25 MB
SERVED_RETRY_SECONDS: Final = 5.0  # s before the recorder tries again after a failure (a full disk)
SERVED_END_SECONDS_MAX: Final = 10.0  # s platform down waits for the recorder; what it has not written stays spooled
SERVED_GROUP_ROWS: Final = 16_384  # rows of one row group of a Parquet file; some 50 MB in the recorder meanwhile

# --- Packager -------------------------------------------------------------------------------------------------------
PACKAGER_IDLE_SECONDS: Final = 300.0  # s the warm packager stays; importing its libraries again costs 4-10 s
PACKAGER_SECONDS_MAX: Final = 300.0  # s one conversion may take
PACKAGER_MEMORY_BYTES_MAX: Final = 8 * 1024**3  # bytes of address space growth one conversion may use
PACKAGER_MESSAGE_BYTES_MAX: Final = 16 * 1024**2  # bytes in one message to or from the packager; a job names files
PACKAGER_START_SECONDS_MAX: Final = 20.0  # s until the resident process behind it listens; it imports nothing before
PACKAGER_RESIDENT_BYTES_MAX: Final = 3 * 1024**3  # bytes resident; above it the process ends when it has nothing to do
PARITY_ROWS_MAX: Final = 20_000  # rows compared in a parity proof
WARMUP_ROWS: Final = 8  # rows kept in a bundle with the original's answers, for the self-proof
SOLVER_SECONDS_MAX: Final = 120.0  # s uv may take to resolve or to install
ENVIRONMENT_SECONDS_MAX: Final = 300.0  # s to download and install an environment of a model's own
ENVIRONMENTS_MAX: Final = 4  # environments of models kept, each of some hundred MB; the longest unused one goes
HANDLER_SECONDS_MAX: Final = 60.0  # s a handler.py may take to be tried; it is tried on some tens of rows
HANDLER_LIB_BYTES_MAX: Final = 256 * 1024**2  # bytes of packages a bundle carries; every byte is checked at deploy
HANDLER_LIB_FILES_MAX: Final = 10_000  # files of them; each is looked at when a worker starts

# --- Registry -------------------------------------------------------------------------------------------------------
REGISTRY_SECONDS_MAX: Final = 10  # s for one request; MLflow's own default is 120
REGISTRY_RETRIES_MAX: Final = 2  # attempts after the first; MLflow's own 7 with back-off take minutes to say "absent"
REGISTRY_REPLY_BYTES_MAX: Final = 1024**2  # bytes of an answer about an alias; a version's description is in it

# --- Following an alias ---------------------------------------------------------------------------------------------
FOLLOWS_MAX: Final = 256  # functions that follow an alias; a look at one costs a registry a few milliseconds
FOLLOW_LOOK_SECONDS: Final = 1.0  # s between looks at an alias, give or take a tenth; a slow registry gets more time
FOLLOW_RETRY_SECONDS_MAX: Final = 5.0  # s between attempts on a registry that is away; they begin at a second
FOLLOW_DEPLOY_SECONDS_MAX: Final = 60.0  # s between attempts to deploy a version whose files cannot be fetched
FOLLOW_TRIES_MAX: Final = 3  # attempts at a deploy whose failure may pass (a worker or the packager was killed)
FOLLOW_REGISTRIES_MAX: Final = 8  # registries asked at the same time; one that does not answer holds one thread
FOLLOW_ENVIRONMENT_BYTES_MAX: Final = 128 * 1024  # bytes of environment of who said --follow; fits one link message
FOLLOW_KEEP_SECONDS: Final = 20.0  # s between words to the packager that it is wanted, well within its idle time
FOLLOW_REASON_CHARS_MAX: Final = 500  # characters of what is told about one function; 256 of them fit a link message

# --- Streams --------------------------------------------------------------------------------------------------------
STREAM_BATCH_RECORDS_MAX: Final = 4000  # records polled, scored in one run and committed together; more gain nothing
STREAM_FIRST_RECORDS_MAX: Final = 32  # records of a worker's first batch; doubled as long as calls are quick
STREAM_BATCH_BYTES_MAX: Final = 16 * 1024**2  # bytes of values fetched at a time; bounds memory where records are large
STREAM_RUN_SECONDS_MAX: Final = 1.0  # s of model run a batch is cut to, as the model was measured to cost
STREAM_BATCH_SECONDS_MAX: Final = 10.0  # s a batch may take from decoding to scores; then it is tried again
STREAM_FEATURES_SECONDS_MIN: Final = 1.0  # s features of a batch may take, if their deadline is shorter: nobody waits
STREAM_POLL_SECONDS: Final = 0.2  # s a worker waits for records before it looks whether it should stop
STREAM_KEEP_SECONDS: Final = 2.0  # s between signs of life to the broker while a batch waits to be tried again
STREAM_BROKER_SECONDS_MAX: Final = 10.0  # s one request to a broker may take, its client's retries included
STREAM_TRANSACTION_SECONDS_MAX: Final = 20.0  # s a commit may take before its process ends: 10 more than a client may
STREAM_HELD_UP_SECONDS: Final = 60.0  # s somebody's transaction on the input may hold its readers up until it is told
STREAM_RETRY_SECONDS_MAX: Final = 5.0  # s between attempts on a broker that is away; they begin at a tenth of one
STREAM_TRANSIENT_SECONDS_MAX: Final = 300.0  # s a record waits for what may pass: a store's restart or failover
STREAM_TRIES_MAX: Final = 4  # attempts while a store has no value of a record; calls out of time until a worker ends
STREAM_DEATHS_MAX: Final = 2  # workers that died with a record alone: twice is no accident, so it is a dead letter
STREAM_TRY_SECONDS: Final = 0.2  # s before such a record is scored again, doubled each time; a store reconnects in it
STREAM_DEAD_BYTES_MAX: Final = 1_000_000  # bytes of a value kept in a dead letter; Kafka takes 1 MiB, headers included
SCHEMA_SECONDS_MAX: Final = 5.0  # s a schema registry may take for a schema and all that it refers to
SCHEMA_WAIT_SECONDS_MAX: Final = 300.0  # s a record waits for a registry that does not answer: its restart or failover
SCHEMA_UNKNOWN_SECONDS: Final = 10.0  # s before the registry is asked again for a schema that it did not have
SCHEMA_BYTES_MAX: Final = 1024**2  # bytes of one answer of a schema registry; they are some KB
SCHEMA_REFERENCES_MAX: Final = 64  # schemas that one refers to, in all its depth
SCHEMAS_MAX: Final = 4000  # schemas a worker remembers: one for each record of a batch
SCHEMAS_BYTES_MAX: Final = 16 * 1024**2  # bytes of their text
STREAM_WATCH_SECONDS: Final = 0.25  # s between looks at the lag of a stream
STREAM_WATCHERS_MAX: Final = 8  # threads that look at the lag of streams; brokers that do not answer hold one each
STREAM_LAG_PER_WORKER: Final = 10_000  # records waiting for which one worker is enough
STREAM_STALL_SECONDS: Final = 30.0  # s a partition stands still while records wait, before who reads it is replaced
STREAM_PASSED_RECORDS_MAX: Final = 100_000  # records its reader may read of others first: clients fetch much at once
STREAM_FENCES_MAX: Final = 3  # times in a row a worker finds its partitions taken before it ends, to be replaced
STREAM_STUCK_SECONDS: Final = 2.0  # s a worker that is replaced for that has to end by itself
STREAM_READS_SECONDS: Final = 0.5  # s between looks of a stream worker at which partitions are its own
AGGREGATE_WINDOW_SECONDS_MIN: Final = 60  # s; the shortest window of a stream feature view
AGGREGATE_WINDOW_SECONDS_MAX: Final = 7 * 86_400  # s; the longest; beyond it a daily job does as well
AGGREGATE_TILES_MAX: Final = 10_080  # tiles in a window: a minute each for a week; one entity's then take some 300 KB
AGGREGATE_LATE_SECONDS_DEFAULT: Final = 60.0  # s an event may be late where its view says nothing: time for a retry
AGGREGATE_LATE_SECONDS_MAX: Final = 3_600.0  # s a view may allow; for so long ids of events are kept, of each entity
AGGREGATE_ENTITY_BYTES_MAX: Final = 512 * 1024  # bytes of one entity's tiles, all in use; they are written together
AGGREGATE_IDS_MAX: Final = 28_000  # ids of recent events of an entity; with its tiles below the 1 MB of a Kafka record
AGGREGATE_PLACES_MAX: Final = 10_000  # entities whose record key is known, to notice a topic that is keyed otherwise
AGGREGATE_NOTES_MAX: Final = 8  # things a person should know that a worker tells of its features: each is told once
AGGREGATE_AHEAD_SECONDS_MAX: Final = 60.0  # s an event may be ahead of its record: clocks differ, but not by more
AGGREGATE_KEEP_SECONDS: Final = 0.5  # s between checkpoints of tiles; so much of a topic is read again after a crash
AGGREGATE_BEHIND_SECONDS: Final = 2.0  # s a batch is old where records wait; checkpoints are then so far apart, too
AGGREGATE_LOCK_SECONDS: Final = 5.0  # s to wait for tiles of a partition that moves: who has them keeps them first
AGGREGATE_SEEN_SECONDS_MAX: Final = 3.0  # s a worker may stand still and be sure that nobody else had its partitions
AGGREGATE_CHANGES_MAX: Final = 10_000  # entities put into the changelog late, or taken out, with one checkpoint
AGGREGATE_ENTITIES_MAX: Final = 200_000  # entities in a worker's memory; others are read from its files when needed
AGGREGATE_MEMORY_BYTES_MAX: Final = 256 * 1024**2  # bytes they may take there, about: fewer entities of many tiles
AGGREGATE_DUE_ENTITIES_MAX: Final = 1000  # entities written between two batches because a tile left a window
AGGREGATE_TAIL_RECORDS_MAX: Final = 100_000  # records read again rather than restoring tiles; either takes some seconds
CHANGELOG_SEGMENT_BYTES: Final = 8 * 1024**2  # bytes of a changelog's segment; what is in the last is not compacted
AGGREGATE_LOOK_SECONDS: Final = 5.0  # s between looks at whether the online store has lost what was written
AGGREGATE_STORE_RETRY_SECONDS: Final = 1.0  # s a store that did not take values is left alone: scoring goes on
AGGREGATE_NEAR_SECONDS: Final = 5.0  # s a worker stays for the next change of a value: a birth and a join take up to 3
AGGREGATE_VAIN_SECONDS: Final = 30.0  # s a worker stays for features alone while nothing comes of it: the store is down
AGGREGATE_WAKE_SECONDS_MAX: Final = 300.0  # s until another one is born then; the pauses begin at 5 s, and double
AGGREGATE_FACTS_SECONDS: Final = 1.0  # s between what a worker tells of its entities: it counts them
STORE_WRITE_SECONDS_MAX: Final = 2.0  # s a write of feature values may take; then it is tried again later
STORE_WRITE_ROWS: Final = 2048  # entities written together: one transaction, or what is sent before replies are read
STORE_SCRIPT_KEYS: Final = 64  # entities one run of the script in Redis writes; 0.3 ms in which it serves nobody else
EMBEDDED_PARTITIONS: Final = 4  # partitions of a topic of the embedded log, made when it is first used
EMBEDDED_RECORDS_MAX: Final = 1_000_000  # records kept per partition of the embedded log; the oldest read ones go first
EMBEDDED_LEASE_SECONDS: Final = 10.0  # s a reader of the embedded log may say nothing before another one may take over
EMBEDDED_LOOK_SECONDS: Final = 0.02  # s between looks of a waiting reader at the embedded log; 1 % of a core
EMBEDDED_BUSY_SECONDS: Final = 5.0  # s to wait for another process's write to the embedded log

# --- Kubernetes: deploying to a cluster -----------------------------------------------------------------------------
CLUSTER_KNOCK_SECONDS_MAX: Final = 5.0  # s until a cluster's API first answers, and to connect: it is there, or is not
CLUSTER_REQUEST_SECONDS_MAX: Final = 30.0  # s one answer of a cluster's API may take: webhooks may take 10 each
CLUSTER_AWAY_SECONDS_MAX: Final = 40.0  # s a cluster's API may be away in the middle: a restart of it takes 10 to 30
CLUSTER_AGAIN_SECONDS: Final = 0.5  # s between two tries of a request that was not answered
CLUSTER_CHANGES_MAX: Final = 20  # tries to change a Service whose status is written meanwhile; two are usual
CLUSTER_LISTED_MAX: Final = 500  # objects of a kind in one answer of the API; the next page is asked for then
ROLLOUT_LOOK_SECONDS: Final = 0.25  # s between looks at a rollout; ten of them are 2 % of what an API allows a client
ROLLOUT_SECONDS_MAX: Final = 300.0  # s for a revision to become ready: a node may have to be made, an image fetched
ROLLOUT_STUCK_SECONDS: Final = 10.0  # s trouble that may pass by itself may last (quota, a Secret that is to come)
ROLLOUT_ROUTE_SECONDS_MAX: Final = 60.0  # s until the gateway sends calls where it was told to; a second, usually
ROLLOUT_LOG_LINES: Final = 20  # last lines of a container that ended, told with the reason
REMOVE_SECONDS_MAX: Final = 120.0  # s until pods of a removed function are gone; each has POD_GRACE_SECONDS
PAUSE_SECONDS_MAX: Final = 60.0  # s until KEDA has ended the workers of a stream; each has KUBERNETES_GRACE_SECONDS
CLUSTER_REVISIONS_KEPT: Final = 10  # revisions of a function kept on a cluster for rollback, with their Secrets
CLUSTER_LOG_LINES_QUEUED: Final = 10_000  # lines read of pods and not printed yet; a reader that is slower slows them
CLUSTER_LOG_LOOK_SECONDS: Final = 1.0  # s between looks for new pods while logs are followed
# Objects of Kubernetes. What Knative and KEDA allow by themselves stands in engine/kubernetes/check.
KUBERNETES_CPU_MILLIS_DEFAULT: Final = 100  # thousandths of a core a pod asks for: it may use more where there is more
KUBERNETES_CPU_MILLIS_MIN: Final = 10  # thousandths of a core that can be asked for; less is a slip of units
KUBERNETES_MEMORY_MIB_DEFAULT: Final = 512  # MiB a pod asks for and may use; a worker takes some 120 and its model
KUBERNETES_MEMORY_BYTES_MIN: Final = 128 * 1024**2  # bytes a worker needs to start; "512m" is half a byte
KUBERNETES_GPUS_MAX: Final = 16  # GPUs of a pod: what the largest machines have
KUBERNETES_TMP_GIB: Final = 1  # GiB a pod may write: tiles of streaming features, spooled rows, uploads
KUBERNETES_TIMEOUT_SECONDS_MIN: Final = 60  # s for a call with its wait for a pod, and for a pod to end: one number
KUBERNETES_GRACE_SECONDS: Final = 40  # s a stream pod has to commit what it has in hand and end, before it is killed
KUBERNETES_LIVE_SECONDS: Final = 120  # s a pod may take to start, before it is asked whether it lives
KUBERNETES_CALLS_WINDOW_SECONDS: Final = 30  # s over which calls in progress are averaged, at most; a longer idle waits
KUBERNETES_LAG_SECONDS: Final = 2  # s between KEDA's looks at the lag of a topic: records of an idle one wait so long
# Container images: registries and what the runtime image is made with.
IMAGE_CONNECT_SECONDS_MAX: Final = 10.0  # s to reach a container registry, name and TLS included
IMAGE_ANSWER_SECONDS_MAX: Final = 60.0  # s a registry may say nothing; uploads count from their last byte
IMAGE_STORE_SECONDS_MAX: Final = 600.0  # s it may take to check and store a layer that has arrived: some GB in a bucket
IMAGE_TRIES_MAX: Final = 5  # attempts at a request that may pass: connection lost, 429, 5xx
IMAGE_PAUSE_SECONDS: Final = 0.2  # s before the second attempt, doubled each time
IMAGE_PAUSE_SECONDS_MAX: Final = 20.0  # s that a registry's Retry-After is listened to
IMAGE_TEXT_BYTES_MAX: Final = 4 * 1024**2  # bytes of a manifest, a config or a token answer: what registries take
IMAGE_CHUNK_BYTES: Final = 4_000_000  # bytes of a piece, where a layer is refused whole: GHCR takes 4 MiB at once
IMAGE_CHUNK_BYTES_MAX: Final = 64 * 1024**2  # bytes of a piece that a registry may ask for; it is held in memory
IMAGE_BLOCK_BYTES: Final = 256 * 1024  # bytes read, hashed and sent at once
IMAGE_LOGIN_SECONDS_MAX: Final = 30.0  # s a credential helper of Docker's may take; some ask a cloud
IMAGE_REDIRECTS_MAX: Final = 5  # hops to where a registry keeps a blob
IMAGE_PACKAGES_SECONDS_MAX: Final = 600.0  # s apt or uv may take to fetch what the runtime image is made of
IMAGE_COMPILE_SECONDS_MAX: Final = 600.0  # s to compile one layer's Python files; 10 to 30 are usual
IMAGE_MAKING_SECONDS_MAX: Final = 86_400.0  # s a layer may be in the making; then its maker was killed, and it goes
IMAGE_CACHE_LAYERS_MAX: Final = 12  # layers kept on this machine, some 70 MB for each lock; three are one image
IMAGE_GZIP_LEVEL: Final = 6  # of layers: pulled often, made once
# --- Worker pods ------------------------------------------------------------------------------------------------------
POD_GRACE_SECONDS: Final = 30.0  # s from SIGTERM to the end of a pod's process; Kubernetes' own default
POD_END_SECONDS: Final = 3.0  # s of these that are kept for spans, a group that is left, and last words
POD_INTAKE_SECONDS_MAX: Final = 10.0  # s after SIGTERM that connections are taken: routers know of the end by then
POD_QUIET_SECONDS: Final = 1.0  # s without a call after which none is expected any more, of a pod that ends
POD_LOOK_SECONDS: Final = 0.05  # s between looks of a pod that ends at whether it may
POD_HANDSHAKE_SECONDS: Final = 0.2  # s a connection's opening that had begun may take; no other one begins meanwhile
POD_SHED_SECONDS: Final = 0.25  # s between closings of silent connections of a pod that has as many as it may
POD_IDLE_SECONDS_MAX: Final = 120.0  # s of silence of a kept connection; Go's clients, Knative's proxy too, keep it 90
POD_WOKEN_SECONDS: Final = 2.0  # s from ready in which a first call is taken to have waited for this start
POD_JOIN_SECONDS_MAX: Final = 10.0  # s without trouble after which a reader without partitions is one too many
TERMINATION_BYTES_MAX: Final = 4096  # bytes of a termination message that Kubernetes keeps
