-- Studies go, and with them what they found and nobody adopted.

DROP VIEW recstore.studies, recstore.trials, recstore_private.studies_at_work, recstore_private.trials_at_work;
DROP TABLE recstore_private.study_data, recstore_private.trials, recstore_private.studies;

-- Version 0003's definitions know one trainer and its settings.
UPDATE recstore_private.recommenders
SET definition = jsonb_set(
    definition,
    '{hyperparameters}',
    (definition -> 'hyperparameters')
        - '{item_exponent,singular_exponent,spectral_share,spectral_weight,options}'::text[] || '{"trainer": "als"}'
);
