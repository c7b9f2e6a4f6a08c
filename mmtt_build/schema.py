"""The tables of a workspace and the triplet row of a release: the only place that names columns.

Each table's first column is its key; a row is superseded by a later row with the same key.
"""

from __future__ import annotations

import pyarrow as pa

SCHEMA_VERSION = 1
"""Of the triplet row; raised when a column changes its meaning or type, not when one is added."""

PRISTINE = pa.schema(
    [
        ("id", pa.string()),  # <source>-<name>
        ("source", pa.string()),  # adapter, e.g. "celebamask-hq"
        ("status", pa.string()),  # ok | excluded (by a rule) | failed (a bad file)
        ("reason", pa.string()),  # why not ok
        ("identity", pa.string()),  # identity as the source dataset gives it, or null
        ("official_split", pa.string()),  # the source dataset's own partition, or null
        ("licence", pa.string()),  # of this image
        ("licence_url", pa.string()),
        ("author", pa.string()),
        ("url", pa.string()),  # where the image was published
        ("original", pa.string()),  # path inside the source folder
        ("original_size", pa.int32()),  # side in pixels before resizing
        ("content_hash", pa.string()),  # blake2b-128 of the original file
        ("phash", pa.binary(32)),  # 256-bit perceptual hash of the stored image
        ("road", pa.string()),  # images.ROAD
        ("image", pa.string()),  # stored PNG, relative to the workspace
        ("parts", pa.string()),  # stored part map, or null
        ("parts_origin", pa.string()),  # masks | labels | landmarks | a parser's name, or null
        ("part_areas", pa.list_(pa.int32())),  # 19 pixel counts
        ("points", pa.list_(pa.float32())),  # records.Pristine.points
        ("skin_lab", pa.list_(pa.float32())),
        ("landmarks", pa.list_(pa.float32())),  # 68 x, y at 512 px, or null
        ("parts_weights", pa.string()),  # weights.Found.identity of the parser, or null
    ]
)

FACES = pa.schema(
    [
        ("id", pa.string()),
        ("pack", pa.string()),  # identity of the networks, as weights.Found
        ("pack_name", pa.string()),  # in the catalogue, or null for a folder of one's own
        ("count", pa.int32()),  # faces that count, see generators.faces.analysis.SECOND_FACE
        ("scores", pa.list_(pa.float32())),  # of these, the largest face first; the columns below are the largest's
        ("box", pa.list_(pa.float32())),  # left, top, right, bottom at 512 px
        ("points", pa.list_(pa.float32())),  # as records.Pristine.points
        ("age", pa.int32()),  # estimated years, or null
        ("pose", pa.list_(pa.float32())),  # yaw, pitch, roll in degrees, or null
        ("embedding", pa.list_(pa.float16(), 512)),  # of length 1; half precision moves a cosine by less than 0.001
    ]
)

GROUPS = pa.schema([("id", pa.string()), ("identity_group", pa.string()), ("split", pa.string())])

PLAN = pa.schema(
    [
        ("forgery_id", pa.string()),
        ("method", pa.string()),
        ("family", pa.string()),
        ("split", pa.string()),
        ("identity_group", pa.string()),
        ("base_id", pa.string()),
        ("source_id", pa.string()),  # donor, or null
        ("parent_id", pa.string()),  # earlier forgery that this one starts from, or null
        ("seed", pa.int64()),
        ("params", pa.string()),  # JSON
    ]
)

FORGERIES = pa.schema(
    [
        ("forgery_id", pa.string()),
        ("status", pa.string()),  # ok | rejected (the method or the contract said no) | failed (an error)
        ("reason", pa.string()),
        ("method", pa.string()),
        ("split", pa.string()),
        ("image", pa.string()),
        ("mask", pa.string()),
        ("mask_origin", pa.string()),  # process | composite
        ("parts", pa.list_(pa.string())),  # parsing classes that the mask touches
        ("mask_area", pa.float32()),
        ("focus", pa.list_(pa.int16(), 2)),  # x, y of `masks.focus`
        ("changed_share", pa.float32()),
        ("mean_change", pa.float32()),
        ("cover", pa.list_(pa.float32())),  # `qc.regions.Map.cover`: masked share of each part
        ("cover_of", pa.string()),  # `qc.regions.basis` of it: it holds for no other files and for no other code
        ("part_map", pa.string()),  # stored part map of the result, or null where the base's still fits
        ("image_crc", pa.int64()),  # CRC-32 of the PNG files: export refuses one that is not what was stored
        ("mask_crc", pa.int64()),
        ("part_map_crc", pa.int64()),
        ("facts", pa.string()),  # JSON of Forged.facts, or null
    ]
)

ANNOTATIONS = pa.schema(
    [
        ("annotation_id", pa.string()),
        ("forgery_id", pa.string()),
        # described | nothing-visible | broken-pair; else no answer any more, as in SUBMISSIONS
        ("answer", pa.string()),
        ("description", pa.string()),  # the annotator's own words
        ("language", pa.string()),
        ("labels", pa.list_(pa.int8(), 21)),
        ("annotator", pa.string()),  # pseudonymous id
        ("observation_s", pa.float32()),
        # human | draft-edited (begun from a model's draft) | scripted (a stand-in); only the first is human text
        ("origin", pa.string()),
    ]
)

TASKS = pa.schema(
    [
        ("task_id", pa.string()),  # says nothing about the kind: annotators can see it
        ("kind", pa.string()),  # pair | repeat (another annotator's pair once more) | control (a pristine as forged)
        ("forgery_id", pa.string()),  # null for a control
        ("mask_of", pa.string()),  # forgery whose mask is shown: of a control one of the same base
        ("base_id", pa.string()),
        ("annotator", pa.string()),  # pseudonymous id
        ("batch", pa.int32()),
        ("project", pa.string()),  # its title on the server
        ("language", pa.string()),
        ("blind", pa.bool_()),  # the forged image alone first
        ("status", pa.string()),  # open, or null; withdrawn: an answer that still comes is kept and not used
        ("reason", pa.string()),  # why withdrawn
    ]
)

SUBMISSIONS = pa.schema(
    [
        ("annotation_id", pa.string()),
        ("task_id", pa.string()),
        ("project", pa.string()),
        ("kind", pa.string()),  # as in TASKS, or null where the task is none of ours
        # ok | unreadable (not what the page sends) | unknown-task | second (of several answers to one task another one
        # counts) | withdrawn (the task was, before the answer came) | sent-back (a version that stays; its task is open
        # again) | deleted (on the server)
        ("status", pa.string()),
        ("reason", pa.string()),  # why not ok
        ("annotator", pa.string()),  # who submitted it: pseudonymous id, or user-<n> for somebody who has none
        ("origin", pa.string()),  # human | draft-edited, for ever
        ("answer", pa.string()),  # described | nothing-visible | broken-pair; null where it could not be read
        ("description", pa.string()),
        ("language", pa.string()),
        ("labels", pa.list_(pa.int8(), 21)),
        ("sides", pa.list_(pa.string())),  # subject's sides of paired labels, e.g. "eye.left"
        ("view", pa.string()),  # open (pristine, forged and mask at once) | blind-first (the forged image alone first)
        ("first", pa.string()),  # of a blind pass: traces | none; null without one
        ("lead_time_s", pa.float64()),  # as the browser counts it
        ("observation_s", pa.float32()),
        ("created_at", pa.timestamp("us", "UTC")),  # by the server's clock, like the next two
        ("updated_at", pa.timestamp("us", "UTC")),
        ("served_at", pa.timestamp("us", "UTC")),  # first sight of the task, or null without the guard's log
        ("source", pa.string()),  # server | file
        ("label_studio", pa.string()),  # version that it came from, or null: a file does not say
        ("page", pa.string()),  # digest of the project's page at that time, or null
        ("result", pa.string()),  # JSON, as it came
    ]
)
"""All that came back, repeats and controls too; what describes a forgery is in ANNOTATIONS besides."""

DRAFTS = pa.schema(
    [
        ("task_id", pa.string()),
        ("status", pa.string()),  # ok | empty | too-long (over the recipe's words, or cut off)
        ("text", pa.string()),  # as generated
        ("model_version", pa.string()),  # draft:<name>@<revision>, as the server has it
        ("model", pa.string()),  # name of its folder or on the hub
        ("revision", pa.string()),  # commit of the hub, or digest of a folder's files
        ("licence", pa.string()),  # of the model, as the user stated it, or null
        ("family", pa.string()),  # whose prompt it was; of a control, a drawn one
        ("language", pa.string()),
        ("prompt", pa.string()),
        ("prompt_version", pa.int32()),
        ("seed", pa.int64()),  # of the draw of `shown`; the text is the likeliest one and depends on none
        ("settings", pa.string()),  # JSON of all else that shaped the text, and the share to be shown
        ("shown", pa.bool_()),  # whether the annotator is to see it
        ("created_at", pa.timestamp("us", "UTC")),
        ("placed_at", pa.timestamp("us", "UTC")),  # when it was on the server; null where it never was
    ]
)
"""What a model wrote about a task. It is nobody's words: no row of it is an annotation."""

SPAN = pa.struct([("start", pa.int32()), ("end", pa.int32())])

FINDING = pa.struct(
    [
        ("rule", pa.string()),
        ("severity", pa.string()),
        ("message", pa.string()),
        ("spans", pa.list_(SPAN)),  # characters of the description that it is about
    ]
)

FINDINGS = pa.schema(
    [
        ("annotation_id", pa.string()),
        ("forgery_id", pa.string()),  # null for a control
        ("kind", pa.string()),  # as in TASKS; of what was never a task, pair
        ("annotator", pa.string()),
        ("verdict", pa.string()),  # accept | review | reject: what counts; null since the words changed
        ("judged", pa.string()),  # the same by the rules alone, before a reviewer's decision
        ("override", pa.string()),  # id of that decision, or null
        ("findings", pa.list_(FINDING)),
        ("fingerprint", pa.string()),  # of all that the rules saw, and of the rules
    ]
)

IMAGE_CHECKS = pa.schema(
    [
        ("forgery_id", pa.string()),
        ("verdict", pa.string()),
        ("findings", pa.list_(FINDING)),
        ("cover", pa.list_(pa.float32())),  # as in FORGERIES, of the files as they are now; null without a map
        ("fingerprint", pa.string()),
    ]
)

CHECKS = pa.schema(
    [
        ("subject", pa.string()),  # dataset, or annotator/<pseudonymous id>
        ("verdict", pa.string()),
        ("findings", pa.list_(FINDING)),
        ("facts", pa.string()),  # JSON of what was counted
    ]
)

OVERRIDES = pa.schema(
    [
        ("override_id", pa.string()),  # <annotation_id>@<time>: a later decision leaves the earlier one in the table
        ("annotation_id", pa.string()),
        ("verdict", pa.string()),  # accept | review | reject, or null: the rules' own again
        ("reason", pa.string()),
        ("by", pa.string()),
        ("at", pa.timestamp("us", "UTC")),
        ("words", pa.string()),  # digest of the answer that was decided on: of other words the decision says nothing
    ]
)

SENT_BACK = pa.schema(
    [
        ("annotation_id", pa.string()),
        ("task_id", pa.string()),
        ("annotator", pa.string()),
        ("reasons", pa.list_(pa.string())),  # as the annotator reads them
        ("rules", pa.list_(pa.string())),
        # pending (written before the server is asked) | sent | dropped (the annotator was faster)
        ("status", pa.string()),
        ("by", pa.string()),  # a person, or "watch"
        ("at", pa.timestamp("us", "UTC")),
    ]
)

_IMAGE = pa.struct([("bytes", pa.binary()), ("path", pa.string())])

TRIPLETS = pa.schema(
    [
        pa.field("forgery_id", pa.string(), nullable=False),
        pa.field("base_id", pa.string(), nullable=False),
        ("source_id", pa.string()),
        ("parent_id", pa.string()),
        pa.field("image", _IMAGE, nullable=False),
        pa.field("mask", _IMAGE, nullable=False),
        ("description", pa.string()),
        pa.field("labels", pa.list_(pa.int8(), 21)),
        pa.field("method", pa.string(), nullable=False),
        pa.field("family", pa.string(), nullable=False),
        pa.field("split", pa.string(), nullable=False),
        pa.field("identity_group", pa.string(), nullable=False),
        ("licence", pa.string()),
        ("parts", pa.list_(pa.string())),
        ("sides", pa.list_(pa.string())),  # per entry of parts: left, right or "" (the subject's)
        ("part_map", _IMAGE),  # (512, 512) indices of parts.CLASSES in the result, where the process made a map
        ("mask_origin", pa.string()),
        ("mask_area", pa.float32()),
        ("changed_share", pa.float32()),
        ("mean_change", pa.float32()),
        ("seed", pa.int64()),
        ("params", pa.string()),
        ("annotator", pa.string()),
        ("observation_s", pa.float32()),
        ("language", pa.string()),
        ("description_origin", pa.string()),
        ("dataset", pa.string()),
        ("dataset_version", pa.string()),
        ("schema_version", pa.int32()),
    ]
)
"""A row of a release."""

PRISTINE_IMAGE = pa.field("pristine", _IMAGE)
"""Added to `TRIPLETS` by `mmtt build export --with-pristine`."""
