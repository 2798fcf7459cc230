/* schema.c - the tables of images, functions and volumes, step by step. A released step is never edited. */
#include "imagestore/image.h"

static const char step1[] =
    /* id: the blob, whose chunks have the keys from id << 24 on. seen_us: pushed for the last time.
     */
    "CREATE TABLE images("
    " id INTEGER PRIMARY KEY, digest TEXT NOT NULL UNIQUE, kind TEXT NOT NULL,"
    " size INTEGER NOT NULL, created_us INTEGER NOT NULL, seen_us INTEGER NOT NULL);"
    /* Chunks come before their image does, so nothing refers from here to there. */
    "CREATE TABLE image_chunks(id INTEGER PRIMARY KEY, data BLOB NOT NULL);"
    "CREATE TABLE image_tags("
    " tag TEXT PRIMARY KEY,"
    " image_id INTEGER NOT NULL REFERENCES images(id) ON DELETE CASCADE) WITHOUT ROWID;"
    "CREATE INDEX image_tags_by_image ON image_tags(image_id);"
    /* AUTOINCREMENT: a version's id is never used again, even after its function was removed. */
    "CREATE TABLE functions("
    " id INTEGER PRIMARY KEY AUTOINCREMENT, name TEXT NOT NULL UNIQUE,"
    " created_us INTEGER NOT NULL);"
    "CREATE TABLE function_versions("
    " id INTEGER PRIMARY KEY AUTOINCREMENT,"
    " function_id INTEGER NOT NULL REFERENCES functions(id) ON DELETE CASCADE,"
    " version INTEGER NOT NULL, image_id INTEGER NOT NULL REFERENCES images(id),"
    " config TEXT NOT NULL, created_us INTEGER NOT NULL, UNIQUE(function_id, version));"
    "CREATE INDEX function_versions_by_image ON function_versions(image_id);"
    "CREATE TABLE function_aliases("
    " function_id INTEGER NOT NULL, alias TEXT NOT NULL, version INTEGER NOT NULL,"
    " PRIMARY KEY(function_id, alias),"
    " FOREIGN KEY(function_id, version) REFERENCES function_versions(function_id, version)"
    "  ON DELETE CASCADE) WITHOUT ROWID;"
    "CREATE INDEX function_aliases_by_version ON function_aliases(function_id, version);";

static const char step2[] =
    /* Images that a machine gets besides its own: initial RAM disk, further disk. */
    "CREATE TABLE function_version_images("
    " version_id INTEGER NOT NULL REFERENCES function_versions(id) ON DELETE CASCADE,"
    " image_id INTEGER NOT NULL REFERENCES images(id),"
    " PRIMARY KEY(version_id, image_id)) WITHOUT ROWID;"
    "CREATE INDEX function_version_images_by_image ON function_version_images(image_id);"
    /* image: whose content it had at first; that image may be gone. */
    "CREATE TABLE volumes("
    " name TEXT PRIMARY KEY, format TEXT NOT NULL, size INTEGER NOT NULL, image TEXT,"
    " created_us INTEGER NOT NULL) WITHOUT ROWID;"
    /* By name: an old version may name a volume that is gone, and be run again when there is a new one. */
    "CREATE TABLE function_version_volumes("
    " version_id INTEGER NOT NULL REFERENCES function_versions(id) ON DELETE CASCADE,"
    " volume TEXT NOT NULL, PRIMARY KEY(version_id, volume)) WITHOUT ROWID;"
    "CREATE INDEX function_version_volumes_by_volume ON function_version_volumes(volume);";

/* What became of versions. live_before: the version that was live when this one became it. ready_us: when a
 * machine of it was ready for the first time. failure: why none has been. kept: machine.min_instances, so
 * that an index finds the few versions of which machines are kept among thousands. */
static const char step3[] =
    "ALTER TABLE function_versions ADD COLUMN live_before INTEGER;"
    "ALTER TABLE function_versions ADD COLUMN ready_us INTEGER NOT NULL DEFAULT 0;"
    "ALTER TABLE function_versions ADD COLUMN failure TEXT;"
    "ALTER TABLE function_versions ADD COLUMN kept INTEGER NOT NULL DEFAULT 0;"
    "UPDATE function_versions SET"
    " kept = coalesce(json_extract(config, '$.machine.min_instances'), 0);"
    "CREATE INDEX function_versions_kept ON function_versions(function_id) WHERE kept > 0;";

static const char *const steps[] = {step1, step2, step3, NULL};

const struct store_schema imagestore_schema = {.component = "imagestore", .steps = steps};
